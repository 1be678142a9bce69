#include "model/layer_loops.h"

#include <cmath>
#include <gtest/gtest.h>

#include "model/autocast.h"

namespace mha2mla::model {
namespace {

using torch::Tensor;

constexpr double epsilon = 1e-5;

Tensor normal(at::IntArrayRef shape) { return torch::randn(shape, torch::kFloat64); }

Tensor as(const Tensor& x, torch::Dtype dtype) { return x.detach().to(dtype).requires_grad_(); }

double relative_error(const Tensor& got, const Tensor& expected) {
    return ((got.to(torch::kFloat64) - expected).norm() / expected.norm()).item<double>();
}

/// The result, and the gradients of its inputs for a given gradient.
std::vector<Tensor> with_gradients(const Tensor& y, const std::vector<Tensor>& inputs, const Tensor& given) {
    auto all = torch::autograd::grad({y}, inputs, {given.to(y.scalar_type())});
    all.insert(all.begin(), y.detach());
    return all;
}

struct Tolerance {
    torch::Dtype dtype;
    double error;
};

class SwigluTest : public testing::TestWithParam<Tolerance> {};

/// A width that no vector divides, and more numbers than one thread takes at a time.
TEST_P(SwigluTest, AndItsGradientsAreThoseOfTheFormula) {
    torch::manual_seed(5);
    const auto [dtype, error] = GetParam();
    const auto gate = as(normal({3, 331, 67}) * 4, dtype);
    const auto up = as(normal({3, 331, 67}), dtype);
    const auto given = normal({3, 331, 67}).to(dtype);
    const auto gate64 = as(gate, torch::kFloat64);
    const auto up64 = as(up, torch::kFloat64);
    const auto expected = with_gradients(swiglu_by_operations(gate64, up64), {gate64, up64}, given);
    const auto got = with_gradients(swiglu(gate, up), {gate, up}, given);
    for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(got[i].scalar_type(), dtype);
        EXPECT_LT(relative_error(got[i], expected[i]), error) << i;
    }
}

INSTANTIATE_TEST_SUITE_P(Types, SwigluTest,
                         testing::Values(Tolerance{torch::kFloat32, 1e-6}, Tolerance{torch::kBFloat16, 4e-3}));

TEST(Swiglu, OfLargeNumbersStaysFinite) {
    const auto gate = torch::tensor({-1000.0F, -90.0F, 0.0F, 90.0F, 1000.0F}).requires_grad_();
    const auto up = torch::ones({5}).requires_grad_();
    const auto y = swiglu(gate, up);
    EXPECT_TRUE(torch::allclose(y, torch::tensor({0.0F, 0.0F, 0.0F, 90.0F, 1000.0F})));
    y.sum().backward();
    EXPECT_TRUE(torch::allclose(gate.grad(), torch::tensor({0.0F, 0.0F, 0.5F, 1.0F, 1.0F}), 1e-5, 1e-20));
}

TEST(Swiglu, OfUnlikeFactorsIsRefused) {
    EXPECT_THROW(swiglu(torch::ones({3}), torch::ones({4})), std::logic_error);
    EXPECT_THROW(swiglu(torch::ones({3}), torch::ones({3}, torch::kBFloat16)), std::logic_error);
}

TEST(RmsNormLoops, AndTheirGradientsAreThoseOfTheFormula) {
    torch::manual_seed(6);
    const auto x = as(normal({2, 7, 37}) * 3, torch::kFloat32);
    const auto weight = as(normal({37}), torch::kFloat32);
    const auto given = normal({2, 7, 37}).to(torch::kFloat32);
    const auto x64 = as(x, torch::kFloat64);
    const auto weight64 = as(weight, torch::kFloat64);
    const auto expected = with_gradients(rms_norm_by_operations(x64, weight64, epsilon), {x64, weight64}, given);
    const auto got = with_gradients(rms_norm(x, weight, epsilon), {x, weight}, given);
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_LT(relative_error(got[i], expected[i]), 1e-6) << i;
}

/// Products would round it: it is rounded once, for all.
TEST(RmsNormLoops, AreInBf16WhereProductsAre) {
    torch::manual_seed(7);
    const auto x = as(normal({5, 48}), torch::kFloat32);
    const auto weight = as(normal({48}), torch::kFloat32);
    const auto expected = rms_norm(x, weight, epsilon);
    const Autocast autocast(torch::kCPU, true);
    const auto got = rms_norm(x, weight, epsilon);
    EXPECT_EQ(got.scalar_type(), torch::kBFloat16);
    EXPECT_TRUE(torch::equal(got, expected.to(torch::kBFloat16)));
    const auto given = torch::randn({5, 48}).to(torch::kBFloat16);
    const auto gradients = torch::autograd::grad({got}, {x, weight}, {given});
    const auto precise = torch::autograd::grad({expected}, {x, weight}, {given.to(torch::kFloat32)});
    EXPECT_TRUE(torch::allclose(gradients[0], precise[0], 1e-5, 1e-6));
    EXPECT_TRUE(torch::allclose(gradients[1], precise[1], 1e-5, 1e-6));
}

TEST(RmsNormLoops, OfAFrozenWeightGiveTheSameGradient) {
    const auto x = torch::randn({4, 8}).requires_grad_();
    const auto weight = torch::randn({8});
    const auto frozen = torch::autograd::grad({rms_norm(x, weight, epsilon).square().sum()}, {x});
    const auto learning =
        torch::autograd::grad({rms_norm(x, as(weight, torch::kFloat32), epsilon).square().sum()}, {x});
    EXPECT_TRUE(torch::equal(frozen[0], learning[0]));
}

/// As a view of other tensors, and shared among threads.
TEST(RmsNormLoops, OfStridedRowsAreThoseOfACopy) {
    const int threads = torch::get_num_threads();
    torch::set_num_threads(3);
    const auto x = torch::randn({37, 50}).t();
    const auto weight = torch::randn({37}).requires_grad_();
    const auto y = rms_norm(x, weight, epsilon);
    const auto copied = rms_norm(x.contiguous(), weight, epsilon);
    EXPECT_TRUE(torch::equal(y, copied));
    const auto once = torch::autograd::grad({y.square().sum()}, {weight});
    const auto twice = torch::autograd::grad({copied.square().sum()}, {weight});
    EXPECT_TRUE(torch::equal(once[0], twice[0]));
    torch::set_num_threads(threads);
}

/// The trainer looks for numbers that are not finite.
TEST(LayerLoops, PassNanOn) {
    const auto broken = torch::randn({2, 40});
    broken[1][7] = std::nanf("");
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
        const auto x = broken.to(dtype);
        EXPECT_TRUE(swiglu(x, torch::ones_like(x))[1][7].isnan().item<bool>());
        EXPECT_TRUE(swiglu(torch::ones_like(x), x)[1][7].isnan().item<bool>());
    }
    const auto y = rms_norm(broken, torch::ones({40}), epsilon);
    EXPECT_TRUE(y[0].isfinite().all().item<bool>());
    EXPECT_TRUE(y[1].isnan().all().item<bool>());
}

TEST(RmsNormLoops, OfAnotherWidthAreRefused) {
    EXPECT_THROW(rms_norm(torch::ones({2, 8}), torch::ones({1}), epsilon), std::logic_error);
}

}  // namespace
}  // namespace mha2mla::model
