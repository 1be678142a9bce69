#include "model/cache_emulation.h"

#include <cmath>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "model/attention.h"
#include "model/causal_lm.h"

namespace mha2mla::model {
namespace {

const std::string tiny_gqa = std::string(MHA2MLA_FIXTURES) + "/models/tiny-gqa";

cache::RowFormat rows(const std::string& name) { return cache::parse_cache_format(name, "test").content; }

TEST(ThroughCache, EachRowIsThatOfTheQuantizer) {
    torch::manual_seed(1);
    const auto format = rows("int4");
    const auto x = torch::randn({2, 300, 3, 40});
    const auto got = through_cache(x.transpose(1, 2), format).transpose(1, 2);  // not contiguous
    const cache::GroupFormat& groups = *format.codes;
    std::vector<std::uint8_t> codes(40);
    std::vector<cache::GroupScale> scales(groups.groups(40));
    std::vector<float> expected(40);
    for (const auto& [b, t, h] : {std::array{0, 0, 0}, std::array{0, 299, 2}, std::array{1, 151, 1}}) {
        const auto row = x[b][t][h].contiguous();
        cache::quantize_row(groups, {row.data_ptr<float>(), 40}, codes, scales);
        cache::dequantize_row(groups, codes, scales, expected);
        EXPECT_TRUE(torch::equal(got[b][t][h], torch::tensor(expected)));
    }
    EXPECT_GT((got - x).abs().max().item<float>(), 0.01f);
}

TEST(ThroughCache, TypeAndShapeStayAndTheInputDoes) {
    for (const auto dtype : {torch::kFloat64, torch::kFloat32, torch::kBFloat16}) {
        const auto x = torch::randn({1, 2, 33}).to(dtype);
        const auto before = x.clone();
        const auto got = through_cache(x, rows("int8"));
        EXPECT_EQ(got.scalar_type(), dtype);
        EXPECT_EQ(got.sizes(), x.sizes());
        EXPECT_TRUE(torch::equal(x, before));
    }
    EXPECT_EQ(through_cache(torch::empty({1, 4, 0}), rows("int4")).numel(), 0);
}

TEST(ThroughCache, NumbersAreRoundedToTheTypeOfTheCache) {
    const auto x = torch::randn({3, 8});
    EXPECT_TRUE(torch::equal(through_cache(x, rows("bf16")), x.to(torch::kBFloat16).to(torch::kFloat32)));
}

TEST(ThroughCache, AGradientThatWouldBeLostIsRefused) {
    const auto x = torch::randn({3, 8}).requires_grad_();
    EXPECT_THROW(through_cache(x, rows("int8")), std::logic_error);
    const torch::NoGradGuard no_gradients;
    EXPECT_NO_THROW(through_cache(x, rows("int8")));
}

torch::Tensor logits(const std::string& format) {
    const torch::NoGradGuard no_gradients;
    ModelOptions options;
    if (!format.empty()) options.emulated_cache = cache::parse_cache_format(format, "test");
    CausalLm model(checkpoint::Checkpoint::open(tiny_gqa), options);
    return model(torch::arange(3, 60).unsqueeze(0));
}

TEST(EmulatedCache, FewerBitsMoveTheLogitsOfASourceModelFarther) {
    const auto exact = logits("");
    double last = 0;
    for (const std::string format : {"bf16", "int8", "int4", "int2"}) {
        const double moved = (logits(format) - exact).norm().item<double>();
        EXPECT_GT(moved, 1.5 * last) << format;
        last = moved;
    }
}

TEST(EmulatedCache, KeepsRotatedKeysAndValuesOfAGroupedQueryModel) {
    const torch::NoGradGuard no_gradients;
    const auto source = checkpoint::Checkpoint::open(tiny_gqa);
    ModelOptions options;
    options.emulated_cache = cache::parse_cache_format("int2", "test");
    const auto weights = Weights(source, options).under("model.layers.0.self_attn");
    GqaAttention attention(weights, source.config());
    const auto x = torch::randn({1, 20, source.config().hidden_size});
    const auto k = through_cache(attention->rotate(attention->keys(x)), options.emulated_cache->content);
    const auto v = through_cache(attention->values(x), options.emulated_cache->content);
    const auto mixed = causal_attention(attention->rotate(attention->queries(x)), k, v,
                                        1 / std::sqrt(static_cast<double>(source.config().head_dim)));
    const auto expected = torch::linear(mixed, attention->output_weight());
    EXPECT_TRUE(torch::allclose(attention(x), expected, 1e-5, 1e-6));
}

}  // namespace
}  // namespace mha2mla::model
