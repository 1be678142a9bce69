#include "checkpoint/gguf_llama.h"

#include <cmath>
#include <gmock/gmock.h>
#include <numbers>

#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf.h"
#include "checkpoint/gguf_test_file.h"
#include "checkpoint/test_support.h"

namespace mha2mla::checkpoint {
namespace {

using test::bytes_of;
using test::error_of;
using test::GgufFileWriter;
using test::raw;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t width = 32;
constexpr int head_dim = 16;  // 2 query heads, 1 KV head
constexpr int vocab = 6;
constexpr std::uint32_t q8_0_type = 8;

/// Row r is [1000 r, 1000 r + 1, ...].
std::vector<float> numbered_rows(std::uint64_t rows, std::uint64_t columns = width) {
    std::vector<float> values;
    for (std::uint64_t r = 0; r < rows; ++r) {
        for (std::uint64_t c = 0; c < columns; ++c) values.push_back(static_cast<float>(1000 * r + c));
    }
    return values;
}

/// The row of a head in half-split order -> the row where llama.cpp's converter puts it (pairs side by side).
std::uint64_t converted_row(std::uint64_t row) {
    const std::uint64_t head = row / head_dim;
    const std::uint64_t half = row % head_dim / (head_dim / 2);
    const std::uint64_t pair = row % (head_dim / 2);
    return head * head_dim + 2 * pair + half;
}

/// numbered_rows as the converter would have stored them.
std::vector<float> converted_rows(std::uint64_t rows, std::uint64_t columns = width) {
    std::vector<float> values(rows * columns);
    for (std::uint64_t r = 0; r < rows; ++r) {
        for (std::uint64_t c = 0; c < columns; ++c) {
            values[converted_row(r) * columns + c] = static_cast<float>(1000 * r + c);
        }
    }
    return values;
}

GgufFileWriter llama_metadata() {
    GgufFileWriter writer;
    writer.string("general.architecture", "llama").u32("llama.block_count", 1).u32("llama.context_length", 64);
    writer.u32("llama.embedding_length", width).u32("llama.feed_forward_length", 8);
    writer.u32("llama.attention.head_count", 2).u32("llama.attention.head_count_kv", 1);
    writer.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    return writer;
}

/// All tensors but attn_q.
void add_other_tensors(GgufFileWriter& writer) {
    const auto matrix = [&](const char* name, std::uint64_t in, std::uint64_t out) {
        writer.floats(name, {in, out}, numbered_rows(out, in));
    };
    const auto vector = [&](const char* name) { writer.floats(name, {width}, numbered_rows(1)); };
    matrix("token_embd.weight", width, vocab);
    vector("output_norm.weight");
    vector("blk.0.attn_norm.weight");
    writer.floats("blk.0.attn_k.weight", {width, head_dim}, converted_rows(head_dim));
    matrix("blk.0.attn_v.weight", width, head_dim);
    matrix("blk.0.attn_output.weight", width, width);
    vector("blk.0.ffn_norm.weight");
    matrix("blk.0.ffn_gate.weight", width, 8);
    matrix("blk.0.ffn_up.weight", width, 8);
    matrix("blk.0.ffn_down.weight", 8, width);
}

void add_tensors(GgufFileWriter& writer) {
    add_other_tensors(writer);
    writer.floats("blk.0.attn_q.weight", {width, 2 * head_dim}, converted_rows(2 * head_dim));
}

GgufFileWriter llama() {
    auto writer = llama_metadata();
    add_tensors(writer);
    return writer;
}

std::string error_reading(const GgufFileWriter& writer) {
    const auto bytes = writer.bytes();
    return error_of([&] { read_gguf(bytes_of(bytes), "model.gguf"); });
}

TEST(GgufLlama, ReadsTheConfigThatTheFileWasMadeFrom) {
    const auto bytes = llama().f32("llama.rope.freq_base", 500000.0f).u32("llama.rope.dimension_count", 16).bytes();
    const auto config = read_gguf(bytes_of(bytes), "model.gguf").config;
    ModelConfig expected;
    expected.model_type = "llama";
    expected.vocab_size = vocab;
    expected.hidden_size = width;
    expected.intermediate_size = 8;
    expected.num_hidden_layers = 1;
    expected.num_attention_heads = 2;
    expected.num_key_value_heads = 1;
    expected.head_dim = head_dim;
    expected.max_position_embeddings = 64;
    expected.rms_norm_eps = 1e-5;
    expected.rope_theta = 500000;
    expected.tie_word_embeddings = true;
    EXPECT_EQ(config, expected);
}

TEST(GgufLlama, AnOutputMatrixUntiesTheEmbeddings) {
    auto writer = llama();
    writer.floats("output.weight", {width, vocab}, numbered_rows(vocab));
    const auto bytes = writer.bytes();
    const auto model = read_gguf(bytes_of(bytes), "model.gguf");
    EXPECT_FALSE(model.config.tie_word_embeddings);
    EXPECT_TRUE(model.tensors->shape_of("lm_head.weight").has_value());
}

TEST(GgufLlama, HoldsExactlyTheTensorsOfItsConfig) {
    const test::TemporaryDirectory directory;
    const auto path = directory.path() / "model.gguf";
    core::write_text(path, llama().bytes());
    const auto checkpoint = Checkpoint::open(path);
    EXPECT_EQ(checkpoint.format(), "gguf");
    EXPECT_EQ(checkpoint.tensors().list().size(), expected_tensors(checkpoint.config()).size());
    EXPECT_EQ(checkpoint.read("model.layers.0.mlp.down_proj.weight", {width, 8}), numbered_rows(width, 8));
    EXPECT_EQ(checkpoint.tensors().stored_type("model.norm.weight"), "F32");
}

/// Every range of rows of a tensor against numbered_rows.
void expect_numbered(const TensorSource& tensors, const std::string& name, std::int64_t rows) {
    const auto all = numbered_rows(static_cast<std::uint64_t>(rows));
    for (std::int64_t first = 0; first < rows; ++first) {
        for (std::int64_t count = 0; first + count <= rows; ++count) {
            std::vector<float> out(static_cast<std::size_t>(count) * width, std::nanf(""));
            tensors.read_rows(name, first, count, out);
            EXPECT_TRUE(std::equal(out.begin(), out.end(), all.begin() + first * static_cast<std::int64_t>(width)))
                << name << " rows " << first << " to " << first + count;
        }
    }
}

TEST(GgufLlama, RowsOfQueryAndKeyHeadsAreBackInHalfSplitOrder) {
    const auto bytes = llama().bytes();
    const auto model = read_gguf(bytes_of(bytes), "model.gguf");
    expect_numbered(*model.tensors, "model.layers.0.self_attn.q_proj.weight", 2 * head_dim);
    expect_numbered(*model.tensors, "model.layers.0.self_attn.k_proj.weight", head_dim);
    expect_numbered(*model.tensors, "model.layers.0.self_attn.v_proj.weight", head_dim);
}

TEST(GgufLlama, QuantizedRowsAndBiasesAreReorderedToo) {
    std::string blocks;  // a row is one block: scale 1, all codes the row's half-split number
    std::vector<float> bias(2 * head_dim);
    std::vector<std::string> rows(2 * head_dim);
    for (std::uint64_t r = 0; r < rows.size(); ++r) {
        rows[converted_row(r)] = raw(std::uint16_t{0x3c00}) + std::string(width, static_cast<char>(r));
        bias[converted_row(r)] = static_cast<float>(r);
    }
    for (const auto& row : rows) blocks += row;
    auto writer = llama_metadata();
    add_other_tensors(writer);
    writer.tensor("blk.0.attn_q.weight", {width, 2 * head_dim}, q8_0_type, blocks);
    writer.floats("blk.0.attn_q.bias", {2 * head_dim}, bias);
    const auto bytes = writer.bytes();
    const auto model = read_gguf(bytes_of(bytes), "model.gguf");
    EXPECT_TRUE(model.config.attention_bias);
    std::vector<float> out(3 * width);
    model.tensors->read_rows("model.layers.0.self_attn.q_proj.weight", 7, 3, out);
    for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], static_cast<float>(7 + i / width));
    std::vector<float> bias_part(2);
    model.tensors->read_rows("model.layers.0.self_attn.q_proj.bias", 24, 2, bias_part);
    EXPECT_THAT(bias_part, ElementsAre(24, 25));
}

/// transformers' _compute_llama3_parameters, as llama.cpp's converter turns it into factors.
std::vector<float> llama3_factors(double factor, double theta) {
    std::vector<float> factors;
    for (int pair = 0; pair < head_dim / 2; ++pair) {
        const double wavelength = 2 * std::numbers::pi * std::pow(theta, 2.0 * pair / head_dim);
        if (wavelength < 8192.0 / 4.0) {
            factors.push_back(1);
        } else if (wavelength > 8192.0) {
            factors.push_back(static_cast<float>(factor));
        } else {
            const double smooth = (8192.0 / wavelength - 1.0) / (4.0 - 1.0);
            factors.push_back(static_cast<float>(1 / ((1 - smooth) / factor + smooth)));
        }
    }
    return factors;
}

std::string with_factors(const std::vector<float>& factors) {
    auto writer = llama();
    writer.f32("llama.rope.freq_base", 500000.0f).floats("rope_freqs.weight", {factors.size()}, factors);
    return writer.bytes();
}

TEST(GgufLlama, RecognisesLlama3RopeScalingByItsFactors) {
    for (const double factor : {8.0, 32.0}) {
        const auto bytes = with_factors(llama3_factors(factor, 500000));
        const auto model = read_gguf(bytes_of(bytes), "model.gguf");
        EXPECT_EQ(model.config.rope_scaling, (Llama3RopeScaling{factor, 1, 4, 8192}));
        EXPECT_FALSE(model.tensors->shape_of("rope_freqs.weight"));
    }
    const auto ones = with_factors(std::vector<float>(head_dim / 2, 1.0f));
    EXPECT_FALSE(read_gguf(bytes_of(ones), "model.gguf").config.rope_scaling);
}

TEST(GgufLlama, RefusesRopeFactorsThatItDoesNotKnow) {
    auto changed = llama3_factors(8, 500000);
    changed[5] += 0.01f;
    for (const auto& factors : {changed, llama3_factors(16, 500000), std::vector<float>(3, 1.0f)}) {
        const auto bytes = with_factors(factors);
        EXPECT_EQ(error_of([&] { read_gguf(bytes_of(bytes), "model.gguf"); }),
                  "model.gguf: tensor 'rope_freqs.weight' is no known RoPE scaling, expected the 8 factors of "
                  "Llama-3.1 or Llama-3.2");
    }
}

struct Refusal {
    GgufFileWriter writer;
    const char* message;
};

TEST(GgufLlama, RefusesWhatItDoesNotCompute) {
    const auto one = std::vector<float>{1};
    const std::vector<Refusal> cases = {
        {GgufFileWriter().string("general.architecture", "gemma2"), "architecture 'gemma2' is not supported"},
        {GgufFileWriter(), "metadata key 'general.architecture' is missing"},
        {llama_metadata(), "tensor 'token_embd.weight' is missing"},
        {GgufFileWriter().pair("split.count", GgufType::u16, raw(std::uint16_t{2})), "is one of 2 parts of a model"},
        {llama().f32("llama.attention.clamp_kqv", 8), "metadata key 'llama.attention.clamp_kqv' is not known"},
        {llama().u32("llama.expert_count", 8), "'llama.expert_count' is not usable, expected 0"},
        {llama().u32("llama.rope.dimension_count", 8), "'llama.rope.dimension_count' is not usable, expected 16"},
        {llama().u32("llama.attention.value_length", 8), "'llama.attention.value_length' is not usable, expected 16"},
        {llama().u32("llama.attention.key_length", 5), "field 'head_dim' is not usable"},
        {llama().u32("llama.attention.sliding_window", 16), "field 'sliding_window' is not usable"},
        {llama().u32("llama.vocab_size", 7), "'llama.vocab_size' is not usable, expected 6"},
        {llama().string("llama.rope.scaling.type", "yarn"), "expected 'none', got 'yarn'"},
        {llama().f32("llama.rope.freq_base", -1), "field 'rope_theta' is not usable"},
        {llama().floats("blk.0.ffn_gate_exps.weight", {1}, one), "tensor 'blk.0.ffn_gate_exps.weight' has no place"},
        {llama().floats("blk.00.attn_v.weight", {1}, one), "tensor 'blk.00.attn_v.weight' has no place"},
        {llama().floats("blk.9999999999.attn_v.weight", {1}, one), "has no place in a llama model"},
        {llama().floats("blk.1.attn_q.weight", {4, 17}, std::vector<float>(68)), "does not consist of whole heads"},
        {llama().tensor("output.bias", {32}, q8_0_type, std::string(34, 'x')), "is a vector in a block format"},
    };
    for (const auto& refusal : cases) {
        EXPECT_THAT(error_reading(refusal.writer), AllOf(HasSubstr("model.gguf"), HasSubstr(refusal.message)));
    }
}

TEST(GgufLlama, ValuesThatAreNotFiniteNameTheTensor) {
    auto values = numbered_rows(vocab);
    values[width] = std::nanf("");
    auto writer = llama();
    writer.floats("output.weight", {width, vocab}, values);
    const auto bytes = writer.bytes();
    const auto model = read_gguf(bytes_of(bytes), "model.gguf");
    std::vector<float> row(width);
    model.tensors->read_rows("lm_head.weight", 0, 1, row);
    EXPECT_THAT(error_of([&] { model.tensors->read_rows("lm_head.weight", 1, 1, row); }),
                HasSubstr("tensor 'lm_head.weight' holds values that are not finite"));
}

}  // namespace
}  // namespace mha2mla::checkpoint
