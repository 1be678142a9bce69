#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <tuple>
#include <vector>

#include "model/attention.h"
#include "model/autocast.h"

namespace mha2mla::model {
namespace {

using torch::Tensor;

constexpr std::int64_t heads = 6, kv_heads = 2, key_width = 24, value_width = 10;
constexpr double scale = 0.2;

/// One part of queries and keys, or two of which the second one's keys are constants, and sinks.
struct Inputs {
    Tensor q_BTHd, k_BTGd, v_BTGv;
    Tensor more_q_BTHd = {}, constant_k_BTGd = {};
    Tensor sink_q_BTHd = {}, sink_k_BSGd = {}, sink_v_BSGv = {};

    static Inputs random(std::int64_t tokens, bool with_all = false) {
        torch::manual_seed(8);
        const std::int64_t batch = tokens > 1000 ? 1 : 2;
        const auto numbers = [&](std::int64_t tokens_of, std::int64_t count, std::int64_t width) {
            return torch::randn({batch, tokens_of, count, width}).to(torch::kBFloat16);
        };
        Inputs in{numbers(tokens, heads, key_width), numbers(tokens, kv_heads, key_width),
                  numbers(tokens, kv_heads, value_width)};
        if (!with_all) return in;
        const auto sinks = std::min<std::int64_t>(tokens == 300 ? 200 : 4, tokens);  // more than a block of tokens
        in.more_q_BTHd = numbers(tokens, heads, 8);
        in.constant_k_BTGd = numbers(tokens, kv_heads, 8);
        in.sink_q_BTHd = numbers(tokens, heads, 12);
        in.sink_k_BSGd = numbers(sinks, kv_heads, 12);
        in.sink_v_BSGv = numbers(sinks, kv_heads, value_width);
        return in;
    }
    bool has_all() const { return sink_k_BSGd.defined(); }
    Inputs as(torch::Dtype dtype) const {
        const auto converted = [&](const Tensor& x) {
            return x.defined() ? x.detach().to(dtype).requires_grad_() : Tensor();
        };
        Inputs in{converted(q_BTHd), converted(k_BTGd), converted(v_BTGv)};
        if (!has_all()) return in;
        in.more_q_BTHd = converted(more_q_BTHd);
        in.constant_k_BTGd = constant_k_BTGd.to(dtype, /*non_blocking=*/false, /*copy=*/true);
        in.sink_q_BTHd = converted(sink_q_BTHd);
        in.sink_k_BSGd = converted(sink_k_BSGd);
        in.sink_v_BSGv = converted(sink_v_BSGv);
        return in;
    }
    /// Those that have a gradient.
    std::vector<Tensor> all() const {
        std::vector<Tensor> tensors{q_BTHd, k_BTGd, v_BTGv};
        if (has_all()) tensors.insert(tensors.end(), {more_q_BTHd, sink_q_BTHd, sink_k_BSGd, sink_v_BSGv});
        return tensors;
    }
};

Tensor for_heads(const Tensor& x_BTGd) { return x_BTGd.repeat_interleave(heads / kv_heads, 2); }

Tensor products(const Tensor& q_BTHd, const Tensor& k_BTGd) {
    return torch::einsum("bqhd,bkhd->bhqk", {q_BTHd, for_heads(k_BTGd)});
}

/// The formula on whole matrices, with autograd's own derivative.
Tensor formula(const Inputs& in) {
    const auto tokens = in.q_BTHd.size(1);
    auto logits = products(in.q_BTHd, in.k_BTGd);
    auto v = for_heads(in.v_BTGv);
    if (in.has_all()) {
        const auto sinks = in.sink_k_BSGd.size(1);
        logits = logits + products(in.more_q_BTHd, in.constant_k_BTGd);
        logits = torch::cat({products(in.sink_q_BTHd, in.sink_k_BSGd), logits.slice(3, sinks)}, 3);
        v = torch::cat({for_heads(in.sink_v_BSGv), v.slice(1, sinks)}, 1);
    }
    const auto later = torch::ones({tokens, tokens}, torch::kBool).triu(1);
    const auto p = (scale * logits).masked_fill(later, -std::numeric_limits<double>::infinity()).softmax(-1);
    return torch::einsum("bhqk,bkhv->bqhv", {p, v}).flatten(2);
}

Tensor attention(const Inputs& in) {
    AttentionInputs inputs{.parts = {{in.q_BTHd, in.k_BTGd}}, .v_BTGv = in.v_BTGv};
    if (in.has_all()) {
        inputs.parts.insert(inputs.parts.begin(), {in.more_q_BTHd, in.constant_k_BTGd});
        inputs.sinks = Sinks{.exact = {in.sink_q_BTHd, in.sink_k_BSGd}, .v = in.sink_v_BSGv};
    }
    return causal_attention(inputs, scale);
}

double relative_error(const Tensor& got, const Tensor& expected) {
    return ((got.to(torch::kFloat64) - expected).norm() / (expected.norm() + 1e-9)).item<double>();
}

class CausalAttentionTest : public testing::TestWithParam<std::tuple<std::int64_t, bool>> {};

TEST_P(CausalAttentionTest, InBf16IsTheFormulaWithItsGradients) {
    const auto [tokens, with_all] = GetParam();
    const auto in = Inputs::random(tokens, with_all);
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

/// Three whose probabilities are kept, the last of which is several blocks, one where they are computed again, and one
/// that LibTorch attends to.
INSTANTIATE_TEST_SUITE_P(Tokens, CausalAttentionTest,
                         testing::Combine(testing::Values(1, 33, 300, 1030, 2050), testing::Bool()));

TEST(CausalAttention, InFloatsIsTheFormula) {
    for (const bool with_all : {false, true}) {
        const auto in = Inputs::random(33, with_all);
        EXPECT_LT(relative_error(attention(in.as(torch::kFloat32)), formula(in.as(torch::kFloat64))), 1e-6);
    }
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
    const auto in = Inputs::random(20, true);
    auto other = in.as(torch::kBFloat16);
    const torch::NoGradGuard no_gradients;
    for (const auto& x : other.all()) x.slice(1, 13).fill_(100);
    other.constant_k_BTGd.slice(1, 13).fill_(100);
    EXPECT_TRUE(torch::equal(attention(in.as(torch::kBFloat16)).slice(1, 0, 13), attention(other).slice(1, 0, 13)));
}

/// What sinks stand for does not count.
TEST(CausalAttention, ReadsNoOtherKeyOrValueOfSinks) {
    const auto in = Inputs::random(20, true);
    auto other = in.as(torch::kBFloat16);
    const torch::NoGradGuard no_gradients;
    for (const auto& x : {other.k_BTGd, other.v_BTGv, other.constant_k_BTGd}) x.slice(1, 0, 4).fill_(std::nanf(""));
    EXPECT_TRUE(torch::equal(attention(in.as(torch::kBFloat16)), attention(other)));
}

TEST(CausalAttention, OfMoreKeysThanQueriesIsRefused) {
    auto in = Inputs::random(4);
    in.q_BTHd = in.q_BTHd.slice(1, 0, 3);
    EXPECT_THROW(attention(in), std::logic_error);
}

}  // namespace
}  // namespace mha2mla::model
