#include "finetune/adamw.h"

#include <cmath>
#include <gtest/gtest.h>

namespace mha2mla::finetune {
namespace {

/// Algorithm 2 of arXiv 1711.05101 on one number, as written there.
TEST(AdamW, StepsAsThePaperSays) {
    const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};
    constexpr double rate = 0.01;
    const auto parameter = torch::tensor({1.5}, torch::kFloat64);
    AdamW optimizer({parameter}, options);
    double x = 1.5, m = 0, v = 0;
    for (int step = 1; step <= 5; ++step) {
        const double g = std::sin(step) + 0.3 * x;
        parameter.mutable_grad() = torch::tensor({g}, torch::kFloat64);
        optimizer.step(rate);
        m = options.beta1 * m + (1 - options.beta1) * g;
        v = options.beta2 * v + (1 - options.beta2) * g * g;
        const double m_hat = m / (1 - std::pow(options.beta1, step));
        const double v_hat = v / (1 - std::pow(options.beta2, step));
        x -= rate * (m_hat / (std::sqrt(v_hat) + options.epsilon) + options.weight_decay * x);
        EXPECT_NEAR(parameter.item<double>(), x, 1e-12) << step;
    }
    EXPECT_EQ(optimizer.steps(), 5);
}

TEST(AdamW, LeavesAParameterWithoutAGradientAlone) {
    const auto parameter = torch::ones({3});
    AdamW optimizer({parameter}, {.weight_decay = 0.5});
    optimizer.step(1);
    EXPECT_TRUE(torch::equal(parameter, torch::ones({3})));
}

TEST(SquaredGradientNorm, IsThatOfAllGradientsTogether) {
    const auto a = torch::zeros({2}), b = torch::zeros({1});
    a.mutable_grad() = torch::tensor({3.0f, 0.0f});
    b.mutable_grad() = torch::tensor({4.0f});
    EXPECT_DOUBLE_EQ(squared_gradient_norm({a, b, torch::zeros({1})}), 25);
    scale_gradients({a, b}, 0.5);
    EXPECT_DOUBLE_EQ(squared_gradient_norm({a, b}), 6.25);
}

}  // namespace
}  // namespace mha2mla::finetune
