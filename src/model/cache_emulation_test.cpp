#include "model/cache_emulation.h"

#include <cmath>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "cache/page_codec.h"
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
        const auto row = x[b][t][h].to(torch::kBFloat16).to(torch::kFloat32).contiguous();
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

TEST(ThroughCache, GradientsPassStraightThrough) {
    for (const std::string name : {"bf16", "int8", "int2", "int4-c"}) {
        const auto x = torch::randn({1, 130, 8}).requires_grad_();
        const auto slopes = torch::randn({1, 130, 8});
        (through_cache(x, rows(name)) * slopes).sum().backward();
        EXPECT_TRUE(torch::equal(x.grad(), slopes)) << name;
    }
}

/// The pages of the runtime's own cache are the oracle: what seal_page makes of the rows, unseal_rows gives back.
TEST(ThroughCache, ChannelsOfFullPagesAreThoseOfASealedPage) {
    torch::manual_seed(2);
    const auto format = rows("int4-c");
    const auto x = torch::randn({1, 2 * cache::page_tokens + 5, 24});
    const auto got = through_cache(x, format);
    const auto page_format = cache::latent_format({.content = format, .rotary = format, .keys = format}, 24, 0);
    std::vector<std::byte> exact(page_format.page_bytes());
    std::vector<std::byte> sealed(page_format.full_page_bytes());
    const auto element = [&](std::int64_t token, std::int64_t column) {
        return reinterpret_cast<core::bf16*>(exact.data() + page_format.planes[0].offset_bytes +
                                             static_cast<std::size_t>(token) * page_format.planes[0].row_bytes) +
               column;
    };
    const auto rows_of_page = x[0].slice(0, cache::page_tokens, 2 * cache::page_tokens).contiguous();
    for (std::int64_t t = 0; t < cache::page_tokens; ++t) {
        for (std::int64_t c = 0; c < 24; ++c) *element(t, c) = core::to_bf16(rows_of_page[t][c].item<float>());
    }
    cache::seal_page(page_format, exact.data(), sealed.data());
    cache::unseal_rows(page_format, sealed.data(), cache::page_tokens, exact.data());
    for (std::int64_t t = 0; t < cache::page_tokens; ++t) {
        for (std::int64_t c = 0; c < 24; ++c) {
            const float rounded = core::to_float(core::to_bf16(got[0][cache::page_tokens + t][c].item<float>()));
            ASSERT_EQ(rounded, core::to_float(*element(t, c))) << t << " " << c;
        }
    }
    const auto open_rows = x.slice(1, 2 * cache::page_tokens);
    EXPECT_TRUE(torch::equal(got.slice(1, 2 * cache::page_tokens), open_rows.to(torch::kBFloat16).to(torch::kFloat32)));
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
    const auto q = attention->rotate(attention->queries(x));
    const double scale = 1 / std::sqrt(static_cast<double>(source.config().head_dim));
    const auto mixed = causal_attention({.parts = {{q, k}}, .v_BTGv = v}, scale);
    const auto expected = torch::linear(mixed, attention->output_weight());
    EXPECT_TRUE(torch::allclose(attention(x), expected, 1e-5, 1e-6));
}

}  // namespace
}  // namespace mha2mla::model
