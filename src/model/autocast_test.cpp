#include "model/autocast.h"

#include <gtest/gtest.h>

#include "model/layers.h"

namespace mha2mla::model {
namespace {

Linear random_linear(std::int64_t in, std::int64_t out) {
    const Weights weights([](const std::string&, const checkpoint::Shape& shape) { return torch::randn(shape); }, {});
    return Linear(weights, LinearShape{in, out, false});
}

torch::Tensor rounded_product(const torch::Tensor& x, const torch::Tensor& weight) {
    return torch::linear(x.to(torch::kBFloat16), weight.to(torch::kBFloat16));
}

TEST(Autocast, FrozenWeightsAreRoundedAsLearningOnesAre) {
    auto linear = random_linear(40, 24);
    const auto x = torch::randn({5, 40});
    const Autocast autocast(torch::kCPU, true);
    for (const bool learns : {true, false}) {
        linear->weight.set_requires_grad(learns);
        EXPECT_TRUE(torch::equal(linear(x), rounded_product(x, linear->weight))) << learns;
    }
}

TEST(Autocast, AFrozenWeightThatIsWrittenToIsRoundedAnew) {
    auto linear = random_linear(40, 24);
    linear->weight.set_requires_grad(false);
    const auto x = torch::randn({5, 40});
    const Autocast autocast(torch::kCPU, true);
    linear(x);
    linear->weight.mul_(3);
    EXPECT_TRUE(torch::equal(linear(x), rounded_product(x, linear->weight)));
}

TEST(Autocast, ProductsAreFloatsAgainBehindIt) {
    auto linear = random_linear(40, 24);
    linear->weight.set_requires_grad(false);
    const auto x = torch::randn({5, 40});
    {
        const Autocast autocast(torch::kCPU, true);
        linear(x);
    }
    EXPECT_TRUE(torch::equal(linear(x), torch::linear(x, linear->weight)));
}

}  // namespace
}  // namespace mha2mla::model
