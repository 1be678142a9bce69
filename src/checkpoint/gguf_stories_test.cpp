// A real model in two formats: its GGUF file against the llama2.c file that it was made from.

#include <cstdlib>
#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf_reader.h"
#include "core/file.h"

namespace mha2mla::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr int layers = 5, width = 64, feed_forward = 172, heads = 8, kv_heads = 4, head_dim = 8, vocab = 512;
constexpr std::size_t llama2c_header_bytes = 7 * sizeof(std::int32_t);

/// The floats of a llama2.c file, front to back.
class Llama2cFile {
public:
    explicit Llama2cFile(const fs::path& path) : file_(path), next_(file_.bytes().data() + llama2c_header_bytes) {}

    std::vector<float> take(int rows, int columns) {
        std::vector<float> values;
        for (int i = 0; i < rows * columns; ++i, next_ += sizeof(float)) values.push_back(load<float>(next_));
        return values;
    }
    /// Rows of q or k: llama2.c keeps Meta's order, pair by pair; Hugging Face's is half-split.
    std::vector<float> take_half_split(int rows, int columns) {
        const auto stored = take(rows, columns);
        std::vector<float> values(stored.size());
        for (int row = 0; row < rows; ++row) {
            const int dim = row % head_dim;
            const int target = row - dim + dim / 2 + dim % 2 * (head_dim / 2);
            for (int c = 0; c < columns; ++c) {
                values[static_cast<std::size_t>(target * columns + c)] =
                    stored[static_cast<std::size_t>(row * columns + c)];
            }
        }
        return values;
    }

private:
    core::MappedFile file_;
    const std::byte* next_;
};

class GgufStories : public ::testing::Test {
protected:
    void SetUp() override {
        const char* data = std::getenv("MHA2MLA_DATA");
        folder_ = fs::path(data != nullptr ? data : MHA2MLA_SHARED_DATA) / "models/stories260K";
        if (!fs::exists(folder_)) GTEST_SKIP() << folder_ << " is not there (set MHA2MLA_DATA)";
    }

    fs::path folder_;
};

TEST_F(GgufStories, EveryTensorEqualsTheLlama2cFile) {
    const auto checkpoint = Checkpoint::open(folder_ / "stories260K.gguf");
    Llama2cFile file(folder_ / "checkpoint_legacy.bin");
    const auto expect = [&](const std::string& name, const Shape& shape, const std::vector<float>& values) {
        EXPECT_EQ(checkpoint.read(name, shape), values) << name;
    };
    const auto each_layer = [&](const char* name, const Shape& shape, auto take) {
        for (int layer = 0; layer < layers; ++layer) expect(layer_tensor(layer, name), shape, take());
    };
    const auto matrices = [&](const char* name, int rows, int columns) {
        each_layer(name, {rows, columns}, [&] { return file.take(rows, columns); });
    };
    const auto rotary = [&](const char* name, int rows) {
        each_layer(name, {rows, width}, [&] { return file.take_half_split(rows, width); });
    };
    const auto norms = [&](const char* name) { each_layer(name, {width}, [&] { return file.take(1, width); }); };

    expect("model.embed_tokens.weight", {vocab, width}, file.take(vocab, width));
    norms("input_layernorm.weight");
    rotary("self_attn.q_proj.weight", heads * head_dim);
    rotary("self_attn.k_proj.weight", kv_heads * head_dim);
    matrices("self_attn.v_proj.weight", kv_heads * head_dim, width);
    matrices("self_attn.o_proj.weight", width, width);
    norms("post_attention_layernorm.weight");
    matrices("mlp.gate_proj.weight", feed_forward, width);
    matrices("mlp.down_proj.weight", width, feed_forward);
    matrices("mlp.up_proj.weight", feed_forward, width);
    expect("model.norm.weight", {width}, file.take(1, width));
}

TEST_F(GgufStories, ConfigAndVocabularyAreThose) {
    const auto checkpoint = Checkpoint::open(folder_ / "stories260K.gguf");
    const auto& config = checkpoint.config();
    EXPECT_EQ(config.num_hidden_layers, layers);
    EXPECT_EQ(config.num_key_value_heads, kv_heads);
    EXPECT_EQ(config.head_dim, head_dim);
    EXPECT_EQ(config.vocab_size, vocab);
    EXPECT_EQ(config.rms_norm_eps, 1e-5);
    EXPECT_EQ(config.rope_theta, 10000);
    EXPECT_EQ(config.bos_token_id, 1);
    const auto tokenizer = core::Json::parse(checkpoint.tokenizer_files().at("tokenizer.json"));
    EXPECT_EQ(tokenizer["model"]["vocab"].size(), static_cast<std::size_t>(vocab));
    EXPECT_EQ(tokenizer["model"]["merges"][0], core::Json::array({"\u2581", "t"}));
}

}  // namespace
}  // namespace mha2mla::checkpoint
