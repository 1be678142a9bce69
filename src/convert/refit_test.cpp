#include "convert/refit.h"

#include <gtest/gtest.h>

namespace mha2mla::convert {
namespace {

using torch::Tensor;

struct Problem {
    Tensor z = torch::randn({200, 5}, torch::kFloat64) + 2;
    Tensor weight = torch::randn({3, 5}, torch::kFloat64);
    Tensor y = z.mm(torch::randn({5, 3}, torch::kFloat64)) + 0.3 * torch::randn({200, 3}, torch::kFloat64) - 1;

    OutputSums sums() const {
        OutputSums sums;
        sums.add(z.slice(0, 0, 80), y.slice(0, 0, 80));
        sums.add(z.slice(0, 80), y.slice(0, 80));
        return sums;
    }
    double loss(const Output& output, double lambda) const {
        const auto error = z.mm(output.weight.t()) + output.bias - y;
        const auto spread = (z - z.mean(0)).square().sum(0);
        return (error.square().sum() + lambda * ((output.weight - weight).square() * spread).sum()).item<double>();
    }
};

TEST(OutputRefit, SolvesItsProblem) {
    torch::manual_seed(11);
    const Problem problem;
    for (const double lambda : {0.0, 0.05, 3.0}) {
        const auto best = fit_output(problem.sums(), problem.weight, lambda);
        const double least = problem.loss(best, lambda);
        for (int round = 0; round < 20; ++round) {
            auto moved = best;
            moved.weight = moved.weight + 1e-3 * torch::randn({3, 5}, torch::kFloat64);
            moved.bias = moved.bias + 1e-3 * torch::randn({3}, torch::kFloat64);
            EXPECT_GT(problem.loss(moved, lambda), least) << lambda;
        }
    }
}

TEST(OutputRefit, OfAHeadThatSaysNothingIsFinite) {
    torch::manual_seed(12);
    Problem problem;
    problem.z.select(1, 2).zero_();
    const auto fitted = fit_output(problem.sums(), problem.weight, 0.05);
    EXPECT_TRUE(fitted.weight.isfinite().all().item<bool>());
    EXPECT_NEAR((fitted.weight.select(1, 2) - problem.weight.select(1, 2)).abs().max().item<double>(), 0, 1e-9);
}

}  // namespace
}  // namespace mha2mla::convert
