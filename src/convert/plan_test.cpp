#include "convert/plan.h"

#include <cmath>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>

#include "convert/deepseek_shape.h"
#include "core/error.h"

namespace mha2mla::convert {
namespace {

/// SmolLM2-135M (d = 64, GQA) or Llama-2-7B (d = 128, MHA) in the fields that a plan looks at.
checkpoint::ModelConfig model_of(int head_dim) {
    checkpoint::ModelConfig config;
    config.model_type = "llama";
    config.hidden_size = head_dim == 64 ? 576 : 4096;
    config.num_hidden_layers = 2;
    config.num_attention_heads = config.hidden_size / head_dim;
    config.num_key_value_heads = head_dim == 64 ? 3 : 32;
    config.head_dim = head_dim;
    return config;
}

TEST(Plan, DefaultsAreThePapers) {
    const auto small = make_plan(model_of(64), {});
    EXPECT_EQ(*small.options.rope_pairs, 4);
    EXPECT_EQ(*small.options.kv_rank, 32);
    EXPECT_EQ(small.target.mla().kv_lora_rank, std::vector<int>({96, 96}));
    EXPECT_EQ(small.target.cached_elements(0), 120);
    EXPECT_DOUBLE_EQ(small.cache_ratio(), 0.3125);

    const auto large = make_plan(model_of(128), {});
    EXPECT_EQ(*large.options.rope_pairs, 8);
    EXPECT_EQ(*large.options.kv_rank, 64);
    EXPECT_EQ(large.target.cached_elements(0), 2560);
    EXPECT_DOUBLE_EQ(large.cache_ratio(), 0.3125);
}

TEST(Plan, LaysOutTheTarget) {
    const auto plan = make_plan(model_of(64), {});
    const auto& mla = plan.target.mla();
    EXPECT_EQ(plan.target.model_type, "mha2mla");
    EXPECT_EQ(mla.source_model_type, "llama");
    EXPECT_EQ(mla.qk_rope_head_dim, std::vector<int>({8, 8}));
    EXPECT_EQ(mla.qk_nope_head_dim, std::vector<int>({56, 56}));
    EXPECT_EQ(mla.num_rope_key_heads, 3);
    EXPECT_DOUBLE_EQ(mla.softmax_scale, 0.125);
    EXPECT_EQ(mla.rope_pairs[1], std::vector<std::vector<int>>(3, {0, 8, 16, 24}));
}

TEST(Plan, CacheRatioSetsTheLatent) {
    for (const auto& [ratio, kv_rank] : {std::pair{0.3125, 32}, std::pair{0.1875, 16}, std::pair{0.125, 8}}) {
        ConversionOptions options;
        options.cache_ratio = ratio;
        const auto plan = make_plan(model_of(64), options);
        EXPECT_EQ(*plan.options.kv_rank, kv_rank);
        EXPECT_DOUBLE_EQ(plan.cache_ratio(), ratio);
    }
}

TEST(Plan, NoneKeepsEverything) {
    ConversionOptions options;
    options.factorization = Factorization::none;
    const auto plan = make_plan(model_of(64), options);
    EXPECT_EQ(plan.target.mla().kv_lora_rank[0], 3 * (56 + 64));
    EXPECT_DOUBLE_EQ(plan.cache_ratio(), 1);
}

TEST(Plan, SplitHasTheCacheOfJointUnlessFullRank) {
    ConversionOptions options;
    options.factorization = Factorization::split_svd;
    const auto split = make_plan(model_of(64), options);
    EXPECT_DOUBLE_EQ(split.cache_ratio(), 0.3125);
    EXPECT_EQ(split_latent(split.source, split.options).keys, 48);
    EXPECT_EQ(split_latent(split.source, split.options).values, 48);
    options.split_full_rank = true;
    const auto full = make_plan(model_of(64), options);
    EXPECT_EQ(full.target.mla().kv_lora_rank[0], 192);
}

TEST(Plan, SplitGivesValuesWhatFewKeysCannotUse) {
    ConversionOptions options;
    options.factorization = Factorization::split_svd;
    options.rope_pairs = 32;
    const auto plan = make_plan(model_of(64), options);
    EXPECT_EQ(split_latent(plan.source, plan.options).keys, 0);
    EXPECT_EQ(split_latent(plan.source, plan.options).values, 96);
}

TEST(Plan, LatentGroupsCacheTheSame) {
    ConversionOptions options;
    options.latent_groups = 8;
    const auto plan = make_plan(model_of(128), options);
    const auto& mla = plan.target.mla();
    EXPECT_EQ(mla.latent_groups, 8);
    EXPECT_EQ(mla.kv_lora_rank[0], 2048);
    EXPECT_EQ(mla.head_rank(0), 256);
    EXPECT_DOUBLE_EQ(plan.cache_ratio(), 0.3125);
    options.kv_rank = 240;  // of 32 heads together no more than 4096 are independent
    EXPECT_EQ(make_plan(model_of(128), options).target.mla().head_rank(0), 4 * 240);
    options.latent_groups = 1;
    EXPECT_THROW(make_plan(model_of(128), options), core::Error);
}

TEST(Plan, TwoNormLeavesThePairsOpen) {
    ConversionOptions options;
    options.selection = Selection::two_norm;
    const auto plan = make_plan(model_of(64), options);
    EXPECT_TRUE(plan.target.mla().rope_pairs[0].empty());
    EXPECT_TRUE(plan_to_json(plan)["layers"][0]["rope_pairs"].is_null());
}

TEST(Plan, AsJson) {
    const auto json = plan_to_json(make_plan(model_of(64), {}));
    EXPECT_EQ(json["select"], "uniform");
    EXPECT_EQ(json["factor"], "joint-svd");
    EXPECT_EQ(json["cache_ratio"], 0.3125);
    EXPECT_EQ(json["cached_elements_per_token"]["source"], 768);
    EXPECT_EQ(json["cached_elements_per_token"]["target"], 240);
    EXPECT_EQ(json["layers"].size(), 2u);
    EXPECT_EQ(json["layers"][0]["rope_pairs"][2], core::OrderedJson({0, 8, 16, 24}));
}

struct Refusal {
    std::string option;  ///< that the message must name
    std::string range;   ///< that it must offer
    std::function<void(ConversionOptions&)> spoil;
};

TEST(Plan, RefusesNamingOptionAndRange) {
    const std::vector<Refusal> refusals{
        {"--method", "mha2mla", [](auto& o) { o.method = "magic"; }},
        {"--rope-pairs", "1..32", [](auto& o) { o.rope_pairs = 0; }},
        {"--rope-pairs", "1..32", [](auto& o) { o.rope_pairs = 33; }},
        {"--rope-pairs", "divisor of 32", [](auto& o) { o.rope_pairs = 5; }},
        {"--kv-rank", "1..120", [](auto& o) { o.kv_rank = 121; }},
        {"--kv-rank", "1..120", [](auto& o) { o.kv_rank = 0; }},
        {"--cache-ratio", "0.0703..1.0000", [](auto& o) { o.cache_ratio = 0.05; }},
        {"--cache-ratio", "0.0703..1.0000", [](auto& o) { o.cache_ratio = 1.2; }},
        {"--cache-ratio", "0.0703", [](auto& o) { o.cache_ratio = std::nan(""); }},
        {"--kv-rank, --cache-ratio", "one of them",
         [](auto& o) {
             o.cache_ratio = 0.3;
             o.kv_rank = 8;
         }},
        {"--factor", "joint-svd",
         [](auto& o) {
             o.factorization = Factorization::none;
             o.kv_rank = 8;
         }},
        {"--split-full-rank", "split-svd", [](auto& o) { o.split_full_rank = true; }},
        {"--latent-groups", "divisor of 3", [](auto& o) { o.latent_groups = 2; }},
        {"--latent-groups", "divisor of 3", [](auto& o) { o.latent_groups = 0; }},
        {"--kv-rank", "1..120 for", [](auto& o) { o.latent_groups = 3, o.kv_rank = 121; }},
        {"--select", "FILE.pth", [](auto& o) { o.selection = Selection::table; }},
    };
    for (const auto& refusal : refusals) {
        ConversionOptions options;
        refusal.spoil(options);
        try {
            make_plan(model_of(64), options);
            ADD_FAILURE() << "accepted: " << refusal.option << " " << refusal.range;
        } catch (const core::Error& error) {
            EXPECT_THAT(error.what(), testing::HasSubstr(refusal.option));
            EXPECT_THAT(error.what(), testing::HasSubstr(refusal.range));
        }
    }
}

TEST(Plan, RefusesAConvertedModel) { EXPECT_THROW(make_plan(make_plan(model_of(64), {}).target, {}), core::Error); }

TEST(Plan, LsqDividesTheCacheBetweenLatentAndRotaryKey) {
    struct Size {
        double ratio;
        int components;
        int elements;
    };
    for (const auto& size : {Size{0.125, 0, 48}, Size{0.1875, 0, 72}, Size{0.3125, 1, 120}, Size{0.4167, 8, 160},
                             Size{0.5, 16, 192}, Size{2.0 / 3, 32, 256}}) {
        ConversionOptions options;
        options.method = "lsq";
        options.cache_ratio = size.ratio;
        const auto plan = make_plan(model_of(64), options);
        const auto& mla = plan.target.mla();
        EXPECT_EQ(mla.qk_rope_head_dim[0], 2 * size.components) << size.ratio;
        EXPECT_EQ(plan.target.cached_elements(0), size.elements) << size.ratio;
        EXPECT_EQ(mla.qk_nope_head_dim[0], 64);
        EXPECT_TRUE(plan.target.attention_bias);
    }
}

checkpoint::ModelConfig turning_model() {
    auto model = model_of(64);
    model.rope_theta = 10000;
    return model;
}

ConversionOptions deepseek_shape() {
    ConversionOptions options;
    options.method = "lsq";
    options.lsq.deepseek_shape = true;
    return options;
}

TEST(Plan, DeepseekShapeIsWhatStockEnginesLoad) {
    const auto plan = make_plan(turning_model(), deepseek_shape());
    const auto& mla = plan.target.mla();
    EXPECT_FALSE(plan.target.attention_bias || mla.positional_part || mla.q_rope_proj);
    EXPECT_EQ(mla.sink_tokens, 0);
    EXPECT_EQ(mla.num_rope_key_heads, 1);
    EXPECT_GT(mla.qk_rope_head_dim[0], 0);
    for (std::size_t layer = 1; layer < mla.rope_pairs.size(); ++layer) {
        EXPECT_EQ(mla.kv_lora_rank[layer], mla.kv_lora_rank[0]);
        EXPECT_EQ(mla.rope_pairs[layer], mla.rope_pairs[0]);
    }
}

TEST(Plan, DeepseekShapeRefusesWhatNoStockEngineLoads) {
    auto biased = turning_model();
    biased.attention_bias = true;
    EXPECT_THROW(make_plan(biased, deepseek_shape()), core::Error);
    auto with_refit = deepseek_shape();
    with_refit.lsq.refit_output = true;
    EXPECT_THROW(make_plan(turning_model(), with_refit), core::Error);
    auto tiny_cache = deepseek_shape();
    tiny_cache.cache_ratio = 0.005;
    EXPECT_THROW(make_plan(turning_model(), tiny_cache), core::Error);
}

TEST(GeometricPairs, ArePowersOfOneBase) {
    auto model = turning_model();
    EXPECT_EQ(geometric_pairs(model, 16).size(), 2u) << "1 and 2 apart";
    EXPECT_EQ(geometric_pairs(model, 1), (std::vector<std::vector<int>>{{0}}));
    EXPECT_TRUE(geometric_pairs(model, 33).empty()) << "a head has 32 pairs";
    const auto table = checkpoint::rope_frequencies(model);
    for (const auto& pairs : geometric_pairs(model, 4)) {
        const double base = table[static_cast<std::size_t>(pairs[1])];
        for (std::size_t i = 0; i < pairs.size(); ++i) {
            EXPECT_NEAR(table[static_cast<std::size_t>(pairs[i])], std::pow(base, i), 1e-12);
        }
    }
    model.rope_scaling = checkpoint::Llama3RopeScaling{8, 1, 4, 8192};
    EXPECT_LT(geometric_pairs(model, 16).size(), 2u) << "the low frequencies are scaled";
}

TEST(Plan, ByLayerNeedsSizesThatAreLeftOpen) {
    ConversionOptions options;
    options.method = "lsq";
    options.kv_rank = 16;
    EXPECT_FALSE(*make_plan(model_of(64), options).options.lsq.by_layer);
    options.lsq.by_layer = true;
    EXPECT_THROW(make_plan(model_of(64), options), core::Error);
}

TEST(Plan, LsqKeepsHalfTheCacheByDefault) {
    ConversionOptions options;
    options.method = "lsq";
    EXPECT_DOUBLE_EQ(make_plan(model_of(64), options).cache_ratio(), 0.5);
}

}  // namespace
}  // namespace mha2mla::convert
