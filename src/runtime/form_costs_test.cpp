#include "runtime/form_costs.h"

#include <gtest/gtest.h>

#include "runtime/attention.h"
#include "runtime/oracle.h"

namespace mha2mla::runtime {
namespace {

using kernels::Isa;

/// SmolLM2-135M at 120 elements a token and layer; random models of Llama's shapes as the benchmarks convert them.
constexpr LatentSizes smollm2{.heads = 9,
                              .kv_heads = 3,
                              .head_rank = 96,
                              .rotary_width = 24,
                              .key_width = 88,
                              .nope_width = 64,
                              .value_width = 64};
constexpr LatentSizes llama2_7b{.heads = 32,
                                .kv_heads = 32,
                                .head_rank = 2048,
                                .rotary_width = 512,
                                .key_width = 128,
                                .nope_width = 112,
                                .value_width = 128};
constexpr LatentSizes llama3_8b{.heads = 32,
                                .kv_heads = 8,
                                .head_rank = 512,
                                .rotary_width = 64,
                                .key_width = 128,
                                .nope_width = 120,
                                .value_width = 128};

class FormCostsOf : public testing::TestWithParam<Isa> {
protected:
    AttentionForm form(const LatentSizes& layer, ChunkSizes chunk) const {
        return cheaper_form(layer, chunk, form_costs(GetParam()));
    }
};

TEST_P(FormCostsOf, DecodeStepsBehindATextAreAbsorbed) {
    for (const LatentSizes& layer : {smollm2, llama2_7b, llama3_8b}) {
        for (const std::int64_t keys : {64, 1024, 32768}) {
            EXPECT_EQ(form(layer, {.queries = 1, .keys = keys}), AttentionForm::absorbed) << keys;
        }
    }
}

TEST_P(FormCostsOf, WholePromptsAreExpanded) {
    for (const LatentSizes& layer : {smollm2, llama2_7b, llama3_8b}) {
        EXPECT_EQ(form(layer, {.queries = 512, .keys = 512}), AttentionForm::expanded);
        EXPECT_EQ(form(layer, {.queries = 512, .keys = 32768}), AttentionForm::expanded);
    }
}

TEST_P(FormCostsOf, LongChunksOfATinyLatentAreAbsorbed) {
    LatentSizes tiny = smollm2;
    tiny.head_rank = 8;
    EXPECT_EQ(form(tiny, {.queries = 512, .keys = 512}), AttentionForm::absorbed);
    EXPECT_EQ(form(tiny, {.queries = 512, .keys = 32768}), AttentionForm::absorbed);
}

TEST_P(FormCostsOf, MoreQueriesNeverTurnBackToAbsorbed) {
    for (const LatentSizes& layer : {smollm2, llama2_7b, llama3_8b}) {
        for (const std::int64_t depth : {64, 1024, 4096}) {
            bool was_expanded = false;
            for (std::int64_t queries = 1; queries <= 512; ++queries) {
                const bool expanded = form(layer, {queries, depth + queries}) == AttentionForm::expanded;
                EXPECT_TRUE(expanded || !was_expanded) << queries << " behind " << depth;
                was_expanded = expanded;
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(, FormCostsOf, testing::Values(Isa::portable, Isa::avx2, Isa::avx512, Isa::amx),
                         [](const auto& of) { return std::string(kernels::name_of(of.param)); });

TEST(FormCosts, CountMultiplyAddsAndNumbers) {
    constexpr LatentSizes layer{.heads = 4,
                                .kv_heads = 2,
                                .head_rank = 10,
                                .rotary_width = 6,
                                .key_width = 7,
                                .nope_width = 4,
                                .value_width = 5};
    constexpr ChunkSizes chunk{.queries = 2, .keys = 5};  // 4 + 5 seen pairs
    constexpr FormCosts attended{.attended = 1, .rebuilt = 0, .moved = 0};
    constexpr FormCosts rebuilt{.attended = 0, .rebuilt = 1, .moved = 0};
    constexpr FormCosts moved{.attended = 0, .rebuilt = 0, .moved = 1};
    EXPECT_EQ(absorbed_cost(layer, chunk, attended), 9 * 4 * (10 + 6 + 10));
    EXPECT_EQ(absorbed_cost(layer, chunk, rebuilt), 2 * 4 * 10 * (4 + 5));
    EXPECT_EQ(absorbed_cost(layer, chunk, moved), 0);
    EXPECT_EQ(expanded_cost(layer, chunk, attended), 9 * 4 * (7 + 5));
    EXPECT_EQ(expanded_cost(layer, chunk, rebuilt), 5 * 2 * 10 * (4 + 5));
    EXPECT_EQ(expanded_cost(layer, chunk, moved), 5 * 2 * (10 + 6 + 7 + 5));
}

TEST(LatentSizes, AreThoseOfTheLayer) {
    const AttentionShape shape(test::tiny_mla_config({.name = "sizes"}));  // 4 heads, 2 KV heads of 16
    MlaWeights weights;
    weights.kv_lora_rank = 20;
    weights.qk_nope_head_dim = 10;
    weights.qk_rope_head_dim = 6;
    weights.rope_pairs.resize(2);
    const auto sizes = latent_sizes(shape, weights);
    EXPECT_EQ(sizes.heads, 4);
    EXPECT_EQ(sizes.kv_heads, 2);
    EXPECT_EQ(sizes.head_rank, 20);
    EXPECT_EQ(sizes.rotary_width, 12);
    EXPECT_EQ(sizes.key_width, 16);
    EXPECT_EQ(sizes.nope_width, 10);
    EXPECT_EQ(sizes.value_width, 16);
    weights.latent_groups = 2;  // of a row that a group of heads reads
    EXPECT_EQ(latent_sizes(shape, weights).head_rank, 10);
    EXPECT_EQ(latent_sizes(shape, weights).rotary_width, 6);
}

/// Bits tell which form computed something: the two are equal up to rounding.
TEST(AutomaticForm, ExpandsPromptsAndAbsorbsSteps) {
    const auto model =
        test::random_model(test::tiny_mla_config({.name = "wide_latent", .ranks = {64, 64}}), "automatic");
    const auto tokens = test::random_tokens(201, 101);
    const auto logits_of = [&](AttentionForm form) {
        test::Engine engine(model, test::f32_options(form), 1);
        return engine.logits(tokens, 200);  // a prompt and a step
    };
    const auto automatic = logits_of(AttentionForm::automatic);
    const auto expanded = logits_of(AttentionForm::expanded);
    const auto absorbed = logits_of(AttentionForm::absorbed);
    EXPECT_EQ(automatic[199], expanded[199]);
    EXPECT_NE(automatic[199], absorbed[199]);
    EXPECT_NE(automatic[200], expanded[200]);
}

}  // namespace
}  // namespace mha2mla::runtime
