#include "convert/lsq_parts.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>

namespace mha2mla::convert {
namespace {

using torch::Tensor;

Tensor random(const std::vector<std::int64_t>& shape) { return torch::randn(shape, torch::kFloat64); }

/// A random positive definite matrix [batch, n, n] or [n, n].
Tensor positive(std::vector<std::int64_t> shape) {
    const auto x = random(shape);
    return x.matmul(x.transpose(-1, -2)) + 0.1 * torch::eye(shape.back(), torch::kFloat64);
}

double difference(const Tensor& a, const Tensor& b) { return ((a - b).abs().max() / b.abs().max()).item<double>(); }

/// Moments of random samples of (a, b, t), one head and three pairs.
calibrate::PairMoments sampled_moments() {
    const auto a = random({1, 3, 200});
    const auto b = random({1, 3, 200}) + 0.5 * a;
    const auto t = 0.7 * a - 0.2 * b + 0.3 * random({1, 3, 200});
    const auto mean = [](const Tensor& x, const Tensor& y) { return (x * y).mean(-1); };
    return {mean(a, a), mean(a, b), mean(b, b), mean(t, a), mean(t, b), mean(t, t)};
}

double residual_at(const calibrate::PairMoments& m, std::int64_t pair, double alpha, double gamma) {
    const auto at = [&](const Tensor& x) { return x[0][pair].item<double>(); };
    return at(m.tt) - 2 * (alpha * at(m.ta) + gamma * at(m.tb)) + alpha * alpha * at(m.aa) +
           2 * alpha * gamma * at(m.ab) + gamma * gamma * at(m.bb);
}

TEST(Compensation, IsTheBestConstant) {
    torch::manual_seed(1);
    const auto moments = sampled_moments();
    const auto solved = compensate(moments, true);
    const auto constant = compensate(moments, false);
    for (std::int64_t pair = 0; pair < 3; ++pair) {
        const double alpha = solved.factor_HP2[0][pair][0].item<double>();
        const double gamma = solved.factor_HP2[0][pair][1].item<double>();
        const double best = solved.residual_HP[0][pair].item<double>();
        EXPECT_NEAR(best, residual_at(moments, pair, alpha, gamma), 1e-9);
        for (const double step : {-1e-2, 1e-2}) {
            EXPECT_LT(best, residual_at(moments, pair, alpha + step, gamma));
            EXPECT_LT(best, residual_at(moments, pair, alpha, gamma + step));
        }
        EXPECT_EQ(constant.factor_HP2[0][pair][0].item<double>(), 1);
        EXPECT_NEAR(constant.residual_HP[0][pair].item<double>(), residual_at(moments, pair, 1, 0), 1e-9);
    }
}

TEST(Compensation, OfASilentPairIsFinite) {
    const auto zero = torch::zeros({1, 3}, torch::kFloat64);
    const auto solved = compensate({zero, zero, zero, zero, zero, zero}, true);
    EXPECT_TRUE(solved.factor_HP2.isfinite().all().item<bool>());
}

/// G = 2 KV heads of width 6 (3 pairs), H = 4 query heads.
RotaryProblem rotary_problem(bool mix_heads) {
    return {.key_covariance = positive({12, 12}),
            .weight_GP = random({2, 3}).abs() + 0.1,
            .kept_loss_P = random({3}).abs() + 0.1,
            .lost_P = random({3}).abs() + 0.1,
            .query_heads = 4,
            .mix_heads = mix_heads};
}

/// conj(q) k summed over all pairs of query head `head`, through the components: sum of conj(factor q) (Rk k).
double component_logit(const RotaryComponents& components, const Tensor& q_d, const Tensor& k, std::int64_t head) {
    const auto count = static_cast<std::int64_t>(components.pairs.size());
    const auto key = components.to_key.mv(k);
    double sum = 0;
    for (std::int64_t c = 0; c < count; ++c) {
        const auto pair = components.pairs[static_cast<std::size_t>(c)];
        const auto number = [](const Tensor& re, const Tensor& im) {
            return std::complex<double>(re.item<double>(), im.item<double>());
        };
        const auto q = number(q_d[pair], q_d[pair + 3]);
        const auto factor = number(components.factor_HC2[head][c][0], components.factor_HC2[head][c][1]);
        sum += (std::conj(factor * q) * number(key[c], key[c + count])).real();
    }
    return sum;
}

TEST(RotaryComponents, AllTogetherAreTheKeys) {
    torch::manual_seed(2);
    for (const bool mix_heads : {true, false}) {
        const auto components = choose_components(rotary_problem(mix_heads), 6);
        const auto identity = components.from_key.mm(components.to_key);
        EXPECT_LT(difference(identity, torch::eye(12, torch::kFloat64)), 1e-9);
        const auto q = random({6});
        const auto k = random({12});
        EXPECT_NEAR(component_logit(components, q, k, 0), q.dot(k.slice(0, 0, 6)).item<double>(), 1e-9);
        EXPECT_NEAR(component_logit(components, q, k, 3), q.dot(k.slice(0, 6, 12)).item<double>(), 1e-9);
    }
}

/// What the components leave of the keys, weighed as choose_components weighs it.
double lost_energy(const RotaryProblem& problem, const RotaryComponents& components) {
    const auto left = torch::eye(12, torch::kFloat64) - components.from_key.mm(components.to_key);
    const auto energy = torch::diag(left.mm(problem.key_covariance).mm(left.t())).view({2, 2, 3}).sum(1);
    return (energy * problem.weight_GP * problem.kept_loss_P).sum().item<double>();
}

TEST(RotaryComponents, MixedHeadsLoseNoMoreThanSingleOnes) {
    torch::manual_seed(3);
    for (int round = 0; round < 5; ++round) {
        auto problem = rotary_problem(true);
        for (std::int64_t count = 0; count < 6; ++count) {
            problem.mix_heads = true;
            const auto mixed = choose_components(problem, count);
            problem.mix_heads = false;
            const auto single = choose_components(problem, count);
            EXPECT_LE(lost_energy(problem, mixed), lost_energy(problem, single) * (1 + 1e-9)) << count;
        }
    }
}

TEST(RotaryComponents, LoseWhatTheFrequenciesCostUntilAllAreKept) {
    torch::manual_seed(8);
    const auto problem = rotary_problem(true);
    EXPECT_NEAR(choose_components(problem, 0).lost, problem.lost_P.sum().item<double>(), 1e-9);
    EXPECT_EQ(choose_components(problem, 6).lost, 0);
    for (std::int64_t count = 1; count <= 6; ++count) {
        EXPECT_LT(choose_components(problem, count).lost, choose_components(problem, count - 1).lost);
    }
}

TEST(RotaryComponents, OfGivenFrequenciesAreTheBestOfEach) {
    torch::manual_seed(12);
    const auto problem = rotary_problem(true);
    const auto given = components_of(problem, {2, 0});
    EXPECT_EQ(given.pairs, (std::vector<int>{2, 0}));
    const auto free = choose_components(problem, 6);
    for (std::int64_t c = 0; c < 2; ++c) {
        const auto best = std::find(free.pairs.begin(), free.pairs.end(), given.pairs[static_cast<std::size_t>(c)]);
        const auto row = best - free.pairs.begin();
        EXPECT_TRUE(torch::equal(given.to_key[c], free.to_key[row]));
        EXPECT_TRUE(torch::equal(given.from_key.select(1, c + 2), free.from_key.select(1, row + 6)));
    }
    EXPECT_GT(given.lost, choose_components(problem, 2).lost * (1 - 1e-12));
    EXPECT_LT(given.lost, problem.lost_P.sum().item<double>());
}

TEST(Metric, RootsMultiplyToIt) {
    torch::manual_seed(13);
    const auto blocks = positive({2, 3, 3});
    const auto metric = make_metric(blocks);
    EXPECT_LT(difference(metric.root_Gdd.bmm(metric.root_Gdd), blocks), 1e-9);
    EXPECT_LT(difference(metric.root_Gdd.bmm(metric.inverse_Gdd), torch::eye(3, torch::kFloat64).expand({2, 3, 3})),
              1e-9);
    const auto covariance = positive({5, 5});
    EXPECT_LT(difference(root_of(covariance).mm(root_of(covariance).t()), covariance), 1e-9);
    EXPECT_TRUE(root_of(torch::zeros({4, 4}, torch::kFloat64)).isfinite().all().item<bool>());
}

WeightedProblem weighted_problem() {
    return {.keys = random({6, 7}),
            .values = random({6, 7}),
            .key_metric = make_metric(positive({2, 3, 3})),
            .value_metric = make_metric(positive({2, 3, 3})),
            .input_root = root_of(positive({7, 7}))};
}

double weighted_loss(const WeightedProblem& problem, const WeightedFactors& factors) {
    const auto side = [&](const Tensor& rows, const Tensor& up, const Metric& metric) {
        const auto error = (rows - up.mm(factors.down)).view({2, 3, 7});
        return metric.root_Gdd.bmm(error).matmul(problem.input_root).square().sum().item<double>();
    };
    return side(problem.keys, factors.key_up, problem.key_metric) +
           side(problem.values, factors.value_up, problem.value_metric);
}

TEST(WeightedFactors, AreExactAtFullRank) {
    torch::manual_seed(4);
    const auto problem = weighted_problem();
    const auto factors = factorize(problem, 7);
    EXPECT_LT(difference(factors.key_up.mm(factors.down), problem.keys), 1e-9);
    EXPECT_LT(difference(factors.value_up.mm(factors.down), problem.values), 1e-9);
    EXPECT_NEAR(factors.lost, 0, 1e-9);
}

/// Inputs that no weight sees change nothing, but make the problem one of more columns than rows: it is then decomposed
/// by rows.
TEST(WeightedFactors, AreTheSameByRowsAndByColumns) {
    torch::manual_seed(6);
    const auto by_columns = weighted_problem();
    auto by_rows = by_columns;
    const auto unseen = torch::zeros({6, 13}, torch::kFloat64);
    by_rows.keys = torch::cat({by_rows.keys, unseen}, 1);
    by_rows.values = torch::cat({by_rows.values, unseen}, 1);
    by_rows.input_root = torch::block_diag({by_columns.input_root, root_of(positive({13, 13}))});
    for (const std::int64_t rank : {1, 3, 7}) {
        const auto a = factorize(by_columns, rank);
        const auto b = factorize(by_rows, rank);
        EXPECT_NEAR(a.lost, b.lost, 1e-12) << rank;
        EXPECT_LT(difference(a.key_up.mm(a.down), b.key_up.mm(b.down).slice(1, 0, 7)), 1e-9) << rank;
        EXPECT_LT(difference(a.value_up.mm(a.down), b.value_up.mm(b.down).slice(1, 0, 7)), 1e-9) << rank;
    }
}

/// A stack of rank 3 asked for 5: what has no energy adds nothing.
TEST(WeightedFactors, OfADependentStackAreFinite) {
    torch::manual_seed(7);
    auto problem = weighted_problem();
    const auto few = random({3, 7});
    problem.keys = random({6, 3}).mm(few);
    problem.values = random({6, 3}).mm(few);
    const auto factors = factorize(problem, 5);
    EXPECT_LT(difference(factors.key_up.mm(factors.down), problem.keys), 1e-6);
    EXPECT_LT(difference(factors.value_up.mm(factors.down), problem.values), 1e-6);
}

TEST(WeightedFactors, AreTheBestOfTheirRank) {
    torch::manual_seed(5);
    const auto problem = weighted_problem();
    const auto factors = factorize(problem, 3);
    const double best = weighted_loss(problem, factors);
    const auto all =
        weighted_loss(problem, {torch::zeros({1, 7}, torch::kFloat64), torch::zeros({6, 1}, torch::kFloat64),
                                torch::zeros({6, 1}, torch::kFloat64)});
    EXPECT_NEAR(factors.lost, best / all, 1e-9);
    for (int round = 0; round < 20; ++round) {
        auto moved = factors;
        moved.down = moved.down + 1e-3 * random({3, 7});
        moved.key_up = moved.key_up + 1e-3 * random({6, 3});
        moved.value_up = moved.value_up + 1e-3 * random({6, 3});
        EXPECT_GT(weighted_loss(problem, moved), best);
    }
}

/// Keys lose as inputs of one covariance weigh them, values as those of another.
double loss_of(const WeightedProblem& problem, const WeightedFactors& factors, const Tensor& key_inputs,
               const Tensor& value_inputs) {
    auto keys_alone = problem;
    keys_alone.values = torch::zeros_like(problem.values);
    keys_alone.input_root = root_of(key_inputs);
    auto of_keys = factors;
    of_keys.value_up = torch::zeros_like(factors.value_up);
    auto values_alone = problem;
    values_alone.keys = torch::zeros_like(problem.keys);
    values_alone.input_root = root_of(value_inputs);
    auto of_values = factors;
    of_values.key_up = torch::zeros_like(factors.key_up);
    return weighted_loss(keys_alone, of_keys) + weighted_loss(values_alone, of_values);
}

TEST(ErrorsByRank, AreThoseOfTheFactors) {
    torch::manual_seed(9);
    const auto problem = weighted_problem();
    const auto key_inputs = positive({7, 7});
    const auto value_inputs = positive({7, 7});
    const auto errors = errors_by_rank(problem, key_inputs, value_inputs);
    ASSERT_EQ(errors.numel(), 8) << "ranks 0..7";
    for (std::int64_t rank = 1; rank <= 7; ++rank) {
        const double expected = loss_of(problem, factorize(problem, rank), key_inputs, value_inputs);
        EXPECT_NEAR(errors[rank].item<double>(), expected, 1e-8 * errors[0].item<double>()) << rank;
    }
}

}  // namespace
}  // namespace mha2mla::convert
