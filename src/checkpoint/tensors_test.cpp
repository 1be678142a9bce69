#include "checkpoint/tensors.h"

#include <gmock/gmock.h>

#include "checkpoint/test_support.h"

namespace mha2mla::checkpoint {
namespace {

using test::error_of;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

std::vector<std::string> lines(const std::vector<TensorSpec>& specs) {
    std::vector<std::string> text;
    for (const auto& spec : specs) text.push_back(spec.name + " " + to_string(spec.shape));
    return text;
}

TEST(ExpectedTensors, OfLlama) {
    const std::vector<std::string> expected{
        "model.layers.1.input_layernorm.weight [12]",      "model.layers.1.self_attn.q_proj.weight [32, 12]",
        "model.layers.1.self_attn.k_proj.weight [16, 12]", "model.layers.1.self_attn.v_proj.weight [16, 12]",
        "model.layers.1.self_attn.o_proj.weight [12, 32]", "model.layers.1.post_attention_layernorm.weight [12]",
        "model.layers.1.mlp.gate_proj.weight [10, 12]",    "model.layers.1.mlp.up_proj.weight [10, 12]",
        "model.layers.1.mlp.down_proj.weight [12, 10]"};
    EXPECT_EQ(lines(expected_layer_tensors(test::tiny_config(), 1)), expected);
}

TEST(ExpectedTensors, AroundTheLayers) {
    auto config = test::tiny_config();
    auto all = lines(expected_tensors(config));
    EXPECT_EQ(all.size(), 2u * 9u + 3u);
    EXPECT_EQ(all.front(), "model.embed_tokens.weight [16, 12]");
    EXPECT_EQ(all[all.size() - 2], "model.norm.weight [12]");
    EXPECT_EQ(all.back(), "lm_head.weight [16, 12]");
    config.tie_word_embeddings = true;
    EXPECT_EQ(lines(expected_tensors(config)).back(), "model.norm.weight [12]");
}

TEST(ExpectedTensors, WithBiases) {
    auto config = test::tiny_config();
    config.attention_bias = true;
    config.mlp_bias = true;
    EXPECT_THAT(lines(expected_layer_tensors(config, 0)),
                IsSupersetOf({"model.layers.0.self_attn.q_proj.bias [32]", "model.layers.0.self_attn.k_proj.bias [16]",
                              "model.layers.0.self_attn.v_proj.bias [16]", "model.layers.0.self_attn.o_proj.bias [12]",
                              "model.layers.0.mlp.gate_proj.bias [10]", "model.layers.0.mlp.up_proj.bias [10]",
                              "model.layers.0.mlp.down_proj.bias [12]"}));
    EXPECT_EQ(expected_layer_tensors(config, 0).size(), 16u);
}

TEST(ExpectedTensors, OfMla) {
    auto config = test::tiny_mla_config();
    config.attention_bias = true;
    // Layer 1: R = 3, K dr = 2 * 2, G (dn + dv) = 2 * (6 + 8).
    EXPECT_THAT(
        lines(expected_layer_tensors(config, 1)),
        IsSupersetOf({"model.layers.1.self_attn.q_proj.weight [32, 12]", "model.layers.1.self_attn.q_proj.bias [32]",
                      "model.layers.1.self_attn.kv_a_proj_with_mqa.weight [7, 12]",
                      "model.layers.1.self_attn.kv_a_proj_with_mqa.bias [7]",
                      "model.layers.1.self_attn.kv_b_proj.weight [28, 3]",
                      "model.layers.1.self_attn.o_proj.weight [12, 32]", "model.layers.1.self_attn.o_proj.bias [12]"}));
    EXPECT_EQ(expected_layer_tensors(config, 1).size(), 12u);
}

TEST(ExpectedTensors, OfMlaWithEveryOptionalPart) {
    const auto tensors = expected_layer_tensors(test::exact_mla_config(), 0);
    EXPECT_THAT(
        lines(tensors),
        IsSupersetOf({"model.layers.0.self_attn.q_nope_factor [4, 2, 2]",
                      "model.layers.0.self_attn.q_rope_factor [4, 2, 2]", "model.layers.0.self_attn.k_mean [2, 8]",
                      "model.layers.0.self_attn.q_rope_proj.weight [16, 12]",
                      "model.layers.0.self_attn.q_rope_proj.bias [16]",
                      "model.layers.0.self_attn.k_proj.weight [16, 12]", "model.layers.0.self_attn.k_proj.bias [16]",
                      "model.layers.0.self_attn.v_proj.weight [16, 12]", "model.layers.0.self_attn.v_proj.bias [16]"}));
    EXPECT_EQ(tensors.size(), 12u + 9u);
}

TEST(Shape, CountsElementsWithoutOverflow) {
    EXPECT_EQ(element_count({}), 1);
    EXPECT_EQ(element_count({3, 4, 5}), 60);
    EXPECT_EQ(element_count({std::int64_t{1} << 40, 0}), 0);
    EXPECT_EQ(element_count({std::int64_t{1} << 24, std::int64_t{1} << 24}), std::int64_t{1} << 48);
    for (const Shape& shape :
         {Shape{-1}, Shape{INT64_MAX, INT64_MAX}, Shape{std::int64_t{1} << 24, (std::int64_t{1} << 24) + 1},
          Shape{0, std::int64_t{1} << 60}, Shape{std::int64_t{1} << 32, std::int64_t{1} << 32}}) {
        EXPECT_THAT(error_of([&] { element_count(shape); }), HasSubstr("is not usable")) << to_string(shape);
    }
}

}  // namespace
}  // namespace mha2mla::checkpoint
