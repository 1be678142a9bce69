#include "model/turn_pairs.h"

#include <gtest/gtest.h>
#include <stdexcept>
#include <string>
#include <vector>

namespace mha2mla::model {
namespace {

using torch::Tensor;

constexpr std::int64_t batch = 2, tokens = 5, heads = 6, width = 16;

struct TurnCase {
    std::string name;
    std::int64_t pair_rows = 0;  // 0: all pairs, in order
    std::int64_t pairs = width / 2;
    std::int64_t frequency_rows = 0;  // 0: not turned
    bool factor = false;

    friend void PrintTo(const TurnCase& test, std::ostream* out) { *out << test.name; }
};

class TurnPairs : public testing::TestWithParam<TurnCase> {
protected:
    TurnPairs() { torch::manual_seed(1); }

    PairChoice choice() const {
        const auto& test = GetParam();
        PairChoice made;
        // Some pairs are chosen twice, others not at all.
        if (test.pair_rows > 0) made.pairs = torch::randint(width / 2, {test.pair_rows, test.pairs}, torch::kInt64);
        if (test.frequency_rows > 0) made.frequencies = torch::rand({test.frequency_rows, test.pairs}, torch::kFloat64);
        return made;
    }
    Tensor factor() const {
        if (!GetParam().factor) return {};
        return torch::randn({heads, GetParam().pairs, 2}, torch::kFloat64).requires_grad_();
    }
};

/// y, and what sum(y * weight) changes by with x and the factor.
std::vector<Tensor> with_gradients(Tensor (*turn)(const Tensor&, const PairChoice&, const Tensor&), const Tensor& x,
                                   const PairChoice& choice, const Tensor& factor, const Tensor& weight) {
    const auto y = turn(x, choice, factor);
    std::vector<Tensor> results{y};
    std::vector<Tensor> inputs{x};
    if (factor.defined()) inputs.push_back(factor);
    for (const auto& gradient : torch::autograd::grad({(y * weight).sum()}, inputs)) results.push_back(gradient);
    return results;
}

TEST_P(TurnPairs, IsWhatOperationsGiveWithItsGradients) {
    const auto chosen = choice();
    const auto scale = factor();
    const auto x = torch::randn({batch, tokens, heads, width}, torch::kFloat64).requires_grad_();
    const auto weight = torch::randn({batch, tokens, heads, 2 * GetParam().pairs}, torch::kFloat64);
    const auto expected = with_gradients(turn_pairs_by_operations, x, chosen, scale, weight);
    const auto got = with_gradients(turn_pairs, x, chosen, scale, weight);
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i].sizes(), expected[i].sizes());
        EXPECT_TRUE(torch::allclose(got[i], expected[i], 1e-12, 1e-12)) << i;
    }
}

TEST_P(TurnPairs, RoundsOnceToTheTypeOfItsInput) {
    const auto chosen = choice();
    const auto scale = factor();
    const auto x = torch::randn({batch, tokens, heads, width}, torch::kBFloat16);
    const auto y = turn_pairs(x, chosen, scale);
    EXPECT_EQ(y.scalar_type(), torch::kBFloat16);
    const auto precise = turn_pairs(x.to(torch::kFloat64), chosen, scale);
    EXPECT_TRUE(torch::allclose(y.to(torch::kFloat64), precise, 0x1p-8, 1e-5));
}

/// The types that models are trained in.
TEST_P(TurnPairs, HasGradientsInEveryType) {
    const auto chosen = choice();
    const auto scale = factor();
    const auto x = torch::randn({batch, tokens, heads, width}, torch::kFloat64).to(torch::kBFloat16);
    const auto weight = torch::randn({batch, tokens, heads, 2 * GetParam().pairs}).to(torch::kBFloat16);
    const auto in = [&](torch::Dtype type) {
        const auto floats = scale.defined() ? scale.detach().to(torch::kFloat32).requires_grad_() : Tensor();
        return with_gradients(turn_pairs, x.to(type).requires_grad_(), chosen, floats, weight.to(type));
    };
    const auto expected = in(torch::kFloat64);
    for (const auto type : {torch::kFloat32, torch::kBFloat16}) {
        const auto got = in(type);
        const double rounding = type == torch::kBFloat16 ? 0x1p-8 : 1e-5;
        for (std::size_t i = 0; i < got.size(); ++i) {
            EXPECT_EQ(got[i].scalar_type(), i == 2 ? torch::kFloat32 : type);
            EXPECT_TRUE(torch::allclose(got[i].to(torch::kFloat64), expected[i].to(torch::kFloat64), rounding, 1e-5))
                << i;
        }
    }
}

/// y's gradient may be one number for all, and either input frozen.
TEST_P(TurnPairs, GivesGradientsToWhatLearns) {
    const auto chosen = choice();
    const auto scale = factor();
    const auto x = torch::randn({batch, tokens, heads, width}, torch::kFloat64);
    const auto learning = x.clone().requires_grad_();
    const auto gradient = [&](const Tensor& from, const Tensor& by, const Tensor& of) {
        return torch::autograd::grad({turn_pairs(from, chosen, by).sum()}, {of})[0];
    };
    EXPECT_EQ(gradient(learning, scale, learning).sizes(), x.sizes());
    if (!scale.defined()) return;
    EXPECT_TRUE(gradient(learning, scale.detach(), learning).equal(gradient(learning, scale, learning)));
    EXPECT_TRUE(gradient(x, scale, scale).equal(gradient(learning, scale, scale)));
}

TEST(TurnPairsSizes, AreChecked) {
    const auto x = torch::zeros({1, 2, 6, 8});
    const auto pairs = [](std::int64_t rows, std::int64_t count) { return torch::zeros({rows, count}, torch::kInt64); };
    EXPECT_THROW(turn_pairs(torch::zeros({2, 6, 8}), {}), std::logic_error);
    EXPECT_THROW(turn_pairs(x, {pairs(4, 2), {}}), std::logic_error);
    EXPECT_THROW(turn_pairs(x, {pairs(0, 2), {}}), std::logic_error);
    EXPECT_THROW(turn_pairs(x, {torch::zeros({1, 2}), {}}), std::logic_error);
    EXPECT_THROW(turn_pairs(x, {{}, torch::zeros({1, 3})}), std::logic_error);
    EXPECT_THROW(turn_pairs(x, {pairs(1, 3), {}}, torch::zeros({6, 4, 2})), std::logic_error);
}

TEST_P(TurnPairs, TakesInputsThatAreNotContiguous) {
    const auto chosen = choice();
    const auto scale = factor();
    const auto x = torch::randn({batch, heads, tokens, width}, torch::kFloat64).transpose(1, 2);
    EXPECT_TRUE(turn_pairs(x, chosen, scale).equal(turn_pairs(x.contiguous(), chosen, scale)));
}

INSTANTIATE_TEST_SUITE_P(Cases, TurnPairs,
                         testing::Values(TurnCase{"turned", 0, width / 2, 1}, TurnCase{"turned_by_heads", 0, 8, heads},
                                         TurnCase{"picked", 1, 3}, TurnCase{"picked_by_groups", 2, 11, 0, true},
                                         TurnCase{"all", 3, 5, 3, true}, TurnCase{"scaled", 0, 8, 0, true},
                                         TurnCase{"none", 2, 0, 2}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mha2mla::model
