#include <cmath>
#include <gtest/gtest.h>
#include <limits>

#include "model/attention.h"
#include "model/autocast.h"

namespace mha2mla::model {
namespace {

using torch::Tensor;

constexpr std::int64_t heads = 6, kv_heads = 2, key_width = 24, value_width = 10;
constexpr double scale = 0.2;

struct Inputs {
    Tensor q_BTHd, k_BTGd, v_BTGv;

    static Inputs random(std::int64_t tokens) {
        torch::manual_seed(8);
        const std::int64_t batch = tokens > 100 ? 1 : 2;
        const auto numbers = [&](std::int64_t count, std::int64_t width) {
            return torch::randn({batch, tokens, count, width}).to(torch::kBFloat16);
        };
        return {numbers(heads, key_width), numbers(kv_heads, key_width), numbers(kv_heads, value_width)};
    }
    Inputs as(torch::Dtype dtype) const {
        const auto converted = [&](const Tensor& x) { return x.detach().to(dtype).requires_grad_(); };
        return {converted(q_BTHd), converted(k_BTGd), converted(v_BTGv)};
    }
    std::vector<Tensor> all() const { return {q_BTHd, k_BTGd, v_BTGv}; }
};

/// The formula on whole matrices, with autograd's own derivative.
Tensor formula(const Inputs& in) {
    const auto tokens = in.q_BTHd.size(1);
    const auto k = in.k_BTGd.repeat_interleave(heads / kv_heads, 2);
    const auto v = in.v_BTGv.repeat_interleave(heads / kv_heads, 2);
    const auto later = torch::ones({tokens, tokens}, torch::kBool).triu(1);
    const auto logits = scale * torch::einsum("bqhd,bkhd->bhqk", {in.q_BTHd, k});
    const auto p = logits.masked_fill(later, -std::numeric_limits<double>::infinity()).softmax(-1);
    return torch::einsum("bhqk,bkhv->bqhv", {p, v}).flatten(2);
}

Tensor attention(const Inputs& in) { return causal_attention(in.q_BTHd, in.k_BTGd, in.v_BTGv, scale); }

double relative_error(const Tensor& got, const Tensor& expected) {
    return ((got.to(torch::kFloat64) - expected).norm() / (expected.norm() + 1e-9)).item<double>();
}

class CausalAttentionTest : public testing::TestWithParam<std::int64_t> {};

TEST_P(CausalAttentionTest, InBf16IsTheFormulaWithItsGradients) {
    const auto in = Inputs::random(GetParam());
    const auto rounded = in.as(torch::kBFloat16);
    const auto exact = in.as(torch::kFloat64);
    const auto expected = formula(exact);
    const auto got = attention(rounded);
    EXPECT_EQ(got.scalar_type(), torch::kBFloat16);
    EXPECT_LT(relative_error(got, expected), 0.005);
    const auto given = torch::randn(expected.sizes(), torch::kFloat64).to(torch::kBFloat16);
    const auto gradients = torch::autograd::grad({got}, rounded.all(), {given});
    const auto of_formula = torch::autograd::grad({expected}, exact.all(), {given.to(torch::kFloat64)});
    for (std::size_t i = 0; i < gradients.size(); ++i) EXPECT_LT(relative_error(gradients[i], of_formula[i]), 0.01);
}

/// Two whose probabilities are kept, one where they are computed again, and one that LibTorch attends to.
INSTANTIATE_TEST_SUITE_P(Tokens, CausalAttentionTest, testing::Values(1, 33, 1030, 2050));

TEST(CausalAttention, InFloatsIsTheFormula) {
    const auto in = Inputs::random(33);
    EXPECT_LT(relative_error(attention(in.as(torch::kFloat32)), formula(in.as(torch::kFloat64))), 1e-6);
}

/// In bf16 a logit of 100 may be off by a quarter, and its probability by as much.
TEST(CausalAttention, DoesNotRoundLogits) {
    auto in = Inputs::random(64);
    in.q_BTHd = in.q_BTHd * 16;
    const auto expected = formula(in.as(torch::kFloat64));
    EXPECT_LT(relative_error(attention(in.as(torch::kBFloat16)), expected), 0.005);
    const Autocast autocast(torch::kCPU, true);
    EXPECT_LT(relative_error(attention(in.as(torch::kBFloat16)), expected), 0.005);
}

TEST(CausalAttention, OfABrokenKeyIsNotFiniteFromThereOn) {
    const auto in = Inputs::random(20);
    in.k_BTGd[0][13][0][5] = std::nanf("");
    const auto mixed = attention(in);
    EXPECT_TRUE(torch::isfinite(mixed.slice(1, 0, 13)).all().item<bool>());
    EXPECT_FALSE(torch::isfinite(mixed[0][13]).all().item<bool>());
}

TEST(CausalAttention, SeesNoLaterToken) {
    const auto in = Inputs::random(20);
    auto other = in.as(torch::kBFloat16);
    const torch::NoGradGuard no_gradients;
    for (const auto& x : other.all()) x.slice(1, 13).fill_(100);
    EXPECT_TRUE(torch::equal(attention(in).slice(1, 0, 13), attention(other).slice(1, 0, 13)));
}

TEST(CausalAttention, OfMoreKeysThanQueriesIsRefused) {
    auto in = Inputs::random(4);
    in.q_BTHd = in.q_BTHd.slice(1, 0, 3);
    EXPECT_THROW(attention(in), std::logic_error);
}

}  // namespace
}  // namespace mha2mla::model
