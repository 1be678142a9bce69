#include <algorithm>
#include <cstdlib>
#include <gtest/gtest.h>

#include "core/file.h"
#include "core/json.h"
#include "runtime/generate.h"
#include "runtime/oracle.h"
#include "runtime/weights.h"

namespace mha2mla::runtime {
namespace {

/// Fixture: tools/make_generate_fixtures.py (transformers, bf16 weights, f32 arithmetic).
/// Every row of a matrix of the model, or of several below each other, as the file says it.
void expect_equal_rows(const checkpoint::Checkpoint& model, const std::vector<std::string>& names,
                       const Matrix& matrix) {
    std::vector<float> packed(static_cast<std::size_t>(matrix.inputs()));
    std::int64_t row = 0;
    for (const std::string& name : names) {
        const auto shape = model.tensors().shape_of(name).value();
        const auto values = model.read(name, shape);
        for (std::int64_t r = 0; r < shape[0]; ++r, ++row) {
            kernels::unpack_row(matrix.packed(), row, packed.data());
            const std::span<const float> stored(values.data() + r * shape[1], packed.size());
            ASSERT_TRUE(std::equal(packed.begin(), packed.end(), stored.begin())) << name << " row " << r;
        }
    }
    EXPECT_EQ(row, matrix.outputs());
}

TEST(DefaultModel, Int4HoldsTheNumbersOfItsFile) {  // Q4_1, but for an embedding in Q8_0
    const char* const path = std::getenv("MHA2MLA_MODEL");
    if (path == nullptr) GTEST_SKIP() << "MHA2MLA_MODEL names no model: ./dev test sets it";
    const auto model = checkpoint::Checkpoint::open(path);
    if (!model.tensors().has_codes("model.layers.0.mlp.up_proj.weight")) GTEST_SKIP() << "not a model in four bits";
    core::Progress progress;
    core::ThreadPool pool(2);
    const auto weights =
        load_weights(model, {.formats = {kernels::WeightFormat::int4, kernels::WeightFormat::int8}}, pool, progress);
    for (int layer = 0; layer < model.config().num_hidden_layers; ++layer) {
        const auto name = [&](const char* tensor) { return checkpoint::layer_tensor(layer, tensor); };
        const LayerWeights& of_layer = weights.layers[static_cast<std::size_t>(layer)];
        expect_equal_rows(
            model, {name("self_attn.q_proj.weight"), name("self_attn.k_proj.weight"), name("self_attn.v_proj.weight")},
            of_layer.attention_in.weight);
        expect_equal_rows(model, {name("self_attn.o_proj.weight")}, of_layer.attention_out.weight);
        expect_equal_rows(model, {name("mlp.gate_proj.weight")}, of_layer.gate.weight);
        expect_equal_rows(model, {name("mlp.up_proj.weight")}, of_layer.up.weight);
        expect_equal_rows(model, {name("mlp.down_proj.weight")}, of_layer.down.weight);
    }
    expect_equal_rows(model, {"model.embed_tokens.weight"}, weights.embedding);
}

TEST(DefaultModel, GreedyTextEqualsTransformers) {
    const char* const path = std::getenv("MHA2MLA_MODEL");
    if (path == nullptr) GTEST_SKIP() << "MHA2MLA_MODEL names no model: ./dev test sets it";
    const auto fixture = core::parse_json(
        core::read_text(std::filesystem::path(MHA2MLA_FIXTURES) / "generate" / "smollm2_greedy.json"), "fixture");
    test::Engine engine(checkpoint::Checkpoint::open(path), {.context_tokens = 512});
    ASSERT_EQ(fixture["cases"].size(), 5u);
    for (const auto& text : fixture["cases"]) {
        const auto prompt = text["prompt_ids"].get<std::vector<int>>();
        const auto expected = text["output_ids"].get<std::vector<int>>();
        std::vector<int> output;
        Sequence sequence = engine.decoder.new_sequence();
        generate(engine.decoder, sequence, prompt, {.max_tokens = static_cast<int>(expected.size())},
                 [&](int token) { output.push_back(token); }, {});
        EXPECT_EQ(output, expected) << text["name"];
    }
}

}  // namespace
}  // namespace mha2mla::runtime
