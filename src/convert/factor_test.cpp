#include "convert/factor.h"

#include <gtest/gtest.h>

namespace mha2mla::convert {
namespace {

torch::Tensor keys() {
    torch::manual_seed(5);
    return torch::randn({10, 24});
}
torch::Tensor values() {
    torch::manual_seed(6);
    return torch::randn({12, 24});
}

double distance(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).norm().item<double>(); }

TEST(JointSvd, LosesExactlyTheDroppedSingularValues) {
    const auto stack = torch::cat({keys(), values()});
    const auto singular = torch::linalg_svdvals(stack);
    for (const int rank : {1, 8, 22}) {
        const auto factors = joint_svd(keys(), values(), rank);
        EXPECT_EQ(factors.down_RE.size(0), rank);
        const auto rebuilt = torch::cat({factors.key_up_KR, factors.value_up_VR}).mm(factors.down_RE);
        EXPECT_NEAR(distance(rebuilt, stack), singular.slice(0, rank).norm().item<double>(), 1e-4);
        EXPECT_TRUE(torch::allclose(factors.down_RE.mm(factors.down_RE.t()), torch::eye(rank), 1e-4, 1e-5));
    }
}

TEST(SplitSvd, IsTwoSvdsSideBySide) {
    const auto factors = split_svd(keys(), values(), {.keys = 3, .values = 5});
    EXPECT_EQ(factors.down_RE.size(0), 8);
    EXPECT_EQ(factors.key_up_KR.slice(1, 3).abs().sum().item<double>(), 0);
    EXPECT_EQ(factors.value_up_VR.slice(1, 0, 3).abs().sum().item<double>(), 0);
    const auto lost = [](const torch::Tensor& w, int rank) {
        return torch::linalg_svdvals(w).slice(0, rank).norm().item<double>();
    };
    EXPECT_NEAR(distance(factors.key_up_KR.mm(factors.down_RE), keys()), lost(keys(), 3), 1e-4);
    EXPECT_NEAR(distance(factors.value_up_VR.mm(factors.down_RE), values()), lost(values(), 5), 1e-4);
}

TEST(SplitSvd, MayHaveNoKeys) {
    const auto factors = split_svd(keys().slice(0, 0, 0), values(), {.keys = 0, .values = 12});
    EXPECT_EQ(factors.key_up_KR.size(0), 0);
    EXPECT_LT(distance(factors.value_up_VR.mm(factors.down_RE), values()), 1e-4);
}

TEST(IdentityFactors, AreExact) {
    const auto factors = identity_factors(keys(), values());
    EXPECT_EQ(distance(factors.key_up_KR.mm(factors.down_RE), keys()), 0);
    EXPECT_EQ(distance(factors.value_up_VR.mm(factors.down_RE), values()), 0);
}

TEST(KeptEnergy, IsTheShareOfTheSquaredNorm) {
    const auto weight = torch::tensor({{3.0f, 4.0f}});
    EXPECT_NEAR(kept_energy(weight, torch::tensor({{3.0f, 0.0f}})), 9.0 / 25, 1e-6);
    EXPECT_EQ(kept_energy(weight, weight), 1);
    EXPECT_EQ(kept_energy(torch::empty({0, 4}), torch::empty({0, 4})), 1);
}

}  // namespace
}  // namespace mha2mla::convert
