#include "convert/transmla_parts.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <numeric>
#include <vector>

namespace mha2mla::convert {
namespace {

using torch::Tensor;
using Matrix = std::vector<std::vector<double>>;

constexpr std::int64_t kv_heads = 3, pairs = 4, width = 8, keys = 24, hidden = 10;

Tensor random_moment() {
    const auto samples = torch::randn({60, keys}, torch::kFloat64);
    return samples.t().mm(samples) / 60;
}

double difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(FoldedPairs, StepThroughTheFrequencies) {
    EXPECT_EQ(folded_pairs(8, 8), std::vector<int>({0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(folded_pairs(8, 2), std::vector<int>({0, 4}));
    EXPECT_EQ(folded_pairs(4, 8), std::vector<int>({0, 1, 2, 3, 0, 1, 2, 3}));
}

TEST(RotateKeys, IsOrthogonalAtEverySize) {
    torch::manual_seed(1);
    const auto moment = random_moment();
    for (const auto& [components, freqfold] :
         {std::pair{1, 4}, std::pair{2, 2}, std::pair{2, 4}, std::pair{4, 1}, std::pair{4, 2}, std::pair{4, 4},
          std::pair{8, 1}, std::pair{8, 2}, std::pair{12, 1}, std::pair{12, 4}}) {
        SCOPED_TRACE(std::to_string(components) + " components, fold " + std::to_string(freqfold));
        const auto rotation = rotate_keys(moment, {kv_heads, components, freqfold});
        EXPECT_EQ(rotation.rotary.size(0), 2 * components);
        const auto all = torch::cat({rotation.rotary, rotation.still});
        EXPECT_LT(difference(all.mm(all.t()), torch::eye(keys, torch::kFloat64)), 1e-12);
    }
}

/// Re(conj(q) k exp(i distance theta)) summed over pairs of half-split vectors.
double rotary_logit(const Tensor& q, const Tensor& k, const std::vector<int>& frequencies, int distance) {
    const auto count = static_cast<std::int64_t>(frequencies.size());
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        const double angle = distance / std::pow(7.0, frequencies[static_cast<std::size_t>(i)]);
        const double qr = q[i].item<double>(), qi = q[i + count].item<double>();
        const double kr = k[i].item<double>(), ki = k[i + count].item<double>();
        sum += (qr * kr + qi * ki) * std::cos(angle) - (qr * ki - qi * kr) * std::sin(angle);
    }
    return sum;
}

TEST(RotateKeys, UnfoldedAndCompleteItLeavesFullRopeUnchanged) {
    torch::manual_seed(2);
    const auto rotation = rotate_keys(random_moment(), {kv_heads, kv_heads * pairs, 1});
    const auto k = torch::randn({keys}, torch::kFloat64);
    const std::vector<int> own{0, 1, 2, 3};
    for (std::int64_t head = 0; head < kv_heads; ++head) {
        const auto q = torch::randn({width}, torch::kFloat64);
        const auto of_head = [&](const Tensor& all) { return all.slice(-1, head * width, (head + 1) * width); };
        for (const int distance : {0, 1, 17}) {
            const double expected = rotary_logit(q, of_head(k), own, distance);
            const double got = rotary_logit(of_head(rotation.rotary).mv(q), rotation.rotary.mv(k),
                                            folded_pairs(pairs, kv_heads * pairs), distance);
            EXPECT_NEAR(got, expected, 1e-11);
        }
    }
}

TEST(RotateKeys, TheStrongestAxesOfABlockRotate) {
    torch::manual_seed(3);
    const auto moment = random_moment();
    const auto rotation = rotate_keys(moment, {kv_heads, pairs, 2});
    const auto energy = [&](const Tensor& rows) { return torch::diag(rows.mm(moment).mm(rows.t())); };
    const auto rotary = energy(rotation.rotary).view({2, pairs}).sum(0);  // both parts of a pair
    const auto still = energy(rotation.still).view({2, 2, -1}).sum(1);    // [blocks, axes]
    for (std::int64_t block = 0; block < 2; ++block) {
        const auto kept = rotary.slice(0, 2 * block, 2 * block + 2);
        EXPECT_GE(kept[0].item<double>(), kept[1].item<double>());
        EXPECT_GE(kept[1].item<double>(), still[block].max().item<double>() - 1e-12);
    }
}

Matrix rows_of(const Tensor& tensor) {
    Matrix rows;
    for (std::int64_t r = 0; r < tensor.size(0); ++r) {
        rows.emplace_back();
        for (std::int64_t c = 0; c < tensor.size(1); ++c) rows.back().push_back(tensor[r][c].item<double>());
    }
    return rows;
}

/// Cyclic Jacobi: turns the symmetric `a` into a diagonal and returns the axes as columns.
Matrix jacobi(Matrix& a) {
    const std::size_t n = a.size();
    Matrix axes(n, std::vector<double>(n, 0));
    for (std::size_t i = 0; i < n; ++i) axes[i][i] = 1;
    for (int sweep = 0; sweep < 60; ++sweep) {
        for (std::size_t p = 0; p < n; ++p) {
            for (std::size_t q = p + 1; q < n; ++q) {
                const double angle = 0.5 * std::atan2(2 * a[p][q], a[q][q] - a[p][p]);
                const double c = std::cos(angle), s = std::sin(angle);
                const auto turn = [c, s](double& x, double& y) {
                    const double before = x;
                    x = c * x - s * y;
                    y = s * before + c * y;
                };
                for (std::size_t i = 0; i < n; ++i) turn(a[i][p], a[i][q]);
                for (std::size_t i = 0; i < n; ++i) turn(a[p][i], a[q][i]);
                for (std::size_t i = 0; i < n; ++i) turn(axes[i][p], axes[i][q]);
            }
        }
    }
    return axes;
}

/// What a balanced latent of width `rank` rebuilds of each sample [keys | values], by loops over samples.
Matrix rebuilt(const Matrix& samples, std::size_t key_count, std::size_t skipped, double balance, std::size_t rank) {
    const std::size_t n = samples[0].size();
    std::vector<double> norms(n);
    for (const auto& sample : samples) {
        for (std::size_t i = 0; i < n; ++i) norms[i] += sample[i] * sample[i];
    }
    double key_norm = 0, value_norm = 0;
    for (std::size_t i = 0; i < key_count; ++i) key_norm += std::sqrt(norms[i]) / static_cast<double>(key_count);
    const std::size_t counted = n - key_count - skipped;
    for (std::size_t i = n - counted; i < n; ++i) value_norm += std::sqrt(norms[i]) / static_cast<double>(counted);
    const double ratio = key_norm / (value_norm * balance);
    const auto scale = [&](std::size_t i) { return i < key_count ? 1 / ratio : 1.0; };
    Matrix moment(n, std::vector<double>(n));
    for (const auto& sample : samples) {
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < n; ++j) moment[i][j] += scale(i) * sample[i] * scale(j) * sample[j];
        }
    }
    const Matrix axes = jacobi(moment);
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return moment[a][a] > moment[b][b]; });
    Matrix out(samples.size(), std::vector<double>(n));
    for (std::size_t t = 0; t < samples.size(); ++t) {
        for (std::size_t r = 0; r < rank; ++r) {
            double latent = 0;
            for (std::size_t i = 0; i < n; ++i) latent += axes[i][order[r]] * scale(i) * samples[t][i];
            for (std::size_t i = 0; i < n; ++i) out[t][i] += axes[i][order[r]] / scale(i) * latent;
        }
    }
    return out;
}

TEST(BalanceAndFactorize, EqualsPlainLoopsOverSamples) {
    torch::manual_seed(4);
    const auto random = [](std::initializer_list<std::int64_t> shape) { return torch::randn(shape, torch::kFloat64); };
    const auto x = random({50, hidden}).mm(random({hidden, hidden})) + random({hidden});
    const auto mean = x.mean(0);
    const BalancedProblem problem{.keys = {3 * random({7, hidden}), random({7})},
                                  .values = {random({9, hidden}), random({9})},
                                  .input = {mean, (x - mean).t().mm(x - mean) / 50},
                                  .balance = 1.5,
                                  .unweighed_values = 2};
    const auto activations = torch::cat(
        {x.mm(problem.keys.weight.t()) + problem.keys.bias, x.mm(problem.values.weight.t()) + problem.values.bias}, 1);
    for (const std::int64_t rank : {1, 5, 16}) {
        const auto factors = balance_and_factorize(problem, rank);
        const auto latent = x.mm(factors.down.t()) + factors.bias;
        const auto got = latent.mm(torch::cat({factors.key_up, factors.value_up}).t());
        const auto expected = rebuilt(rows_of(activations), 7, 2, 1.5, static_cast<std::size_t>(rank));
        for (std::int64_t t = 0; t < 50; ++t) {
            const auto row = torch::tensor(expected[static_cast<std::size_t>(t)], torch::kFloat64);
            ASSERT_LT(difference(got[t], row), 1e-8) << "rank " << rank << ", sample " << t;
        }
    }
}

TEST(BalanceAndFactorize, NoKeysLeftIsNoTrouble) {
    torch::manual_seed(5);
    const BalancedProblem problem{.keys = {torch::zeros({0, 4}, torch::kFloat64), torch::zeros({0}, torch::kFloat64)},
                                  .values = {torch::randn({6, 4}, torch::kFloat64), torch::zeros({6}, torch::kFloat64)},
                                  .input = {torch::zeros({4}, torch::kFloat64), torch::eye(4, torch::kFloat64)},
                                  .unweighed_values = 6};
    const auto factors = balance_and_factorize(problem, 6);
    EXPECT_EQ(factors.ratio, 1);
    EXPECT_LT(difference(factors.value_up.mm(factors.down), problem.values.weight), 1e-12);
}

}  // namespace
}  // namespace mha2mla::convert
