#include "finetune/vocabulary_loss.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>

#include "finetune/vocabulary_loops.h"
#include "model/autocast.h"
#include "model/options.h"

namespace mha2mla::finetune {
namespace {

using torch::Tensor;

constexpr std::int64_t rows = 300;
constexpr std::int64_t bytes_of_128_rows = 128 * 30 * 8;

struct Inputs {
    Head student;
    Head teacher;
    Tensor targets_N;
};

Inputs inputs() {
    model::settle_vector_functions();  // LibTorch's own are the oracle
    torch::manual_seed(3);
    const auto normal = [](std::int64_t r, std::int64_t c) { return torch::randn({r, c}, torch::kFloat64); };
    return {{normal(rows, 12).requires_grad_(), normal(30, 12).requires_grad_()},
            {normal(rows, 7), normal(30, 7)},
            torch::randint(30, {rows}, torch::kInt64)};
}

/// The formula on whole matrices, with autograd's own derivative.
Tensor whole(const Inputs& in, const VocabularyLossOptions& options) {
    const auto logits = in.student.hidden_NE.mm(in.student.matrix_VE.t());
    const auto nll = torch::nll_loss(logits.log_softmax(1), in.targets_N, {}, at::Reduction::Sum);
    if (options.text_share == 1) return nll;
    const double t = options.temperature;
    const auto target = (in.teacher.hidden_NE.mm(in.teacher.matrix_VE.t()) / t).softmax(1);
    const auto divergence = (target * (target.log() - (logits / t).log_softmax(1))).sum();
    return (1 - options.text_share) * t * t * divergence + options.text_share * nll;
}

class VocabularyLossTest : public testing::TestWithParam<VocabularyLossOptions> {};

TEST_P(VocabularyLossTest, AndItsGradientsAreThoseOfTheFormula) {
    const auto in = inputs();
    const auto expected = whole(in, GetParam());
    const auto gradients = torch::autograd::grad({0.7 * expected}, {in.student.hidden_NE, in.student.matrix_VE});
    const auto got = vocabulary_loss(in.student, in.teacher, in.targets_N, GetParam());
    EXPECT_NEAR(got.item<double>(), expected.item<double>(), 1e-9 * std::abs(expected.item<double>()));
    (0.7 * got).backward();
    EXPECT_TRUE(torch::allclose(in.student.hidden_NE.grad(), gradients[0], 1e-9, 1e-12));
    EXPECT_TRUE(torch::allclose(in.student.matrix_VE.grad(), gradients[1], 1e-9, 1e-12));
}

TEST_P(VocabularyLossTest, OfLogitsIsWhatOperationsGive) {
    const auto in = inputs();
    const torch::NoGradGuard no_gradients;
    const auto student = in.student.hidden_NE.mm(in.student.matrix_VE.t());
    const auto teacher = in.teacher.hidden_NE.mm(in.teacher.matrix_VE.t());
    const auto expected = loss_by_operations(student, teacher, in.targets_N, GetParam());
    const auto gradient = student.clone();
    const double loss = logits_to_gradient(gradient, teacher, in.targets_N, GetParam());
    EXPECT_NEAR(loss, expected.loss.item<double>(), 1e-9 * loss);
    EXPECT_TRUE(torch::allclose(gradient, expected.gradient_NV, 1e-9, 1e-12));
}

INSTANTIATE_TEST_SUITE_P(Options, VocabularyLossTest,
                         testing::Values(VocabularyLossOptions{}, VocabularyLossOptions{.temperature = 2.5},
                                         VocabularyLossOptions{.text_share = 1, .bytes_at_a_time = 1},
                                         VocabularyLossOptions{.temperature = 0.5, .text_share = 0.3},
                                         VocabularyLossOptions{.text_share = 0.3,
                                                               .bytes_at_a_time = bytes_of_128_rows}));

/// The loops for floats beside those for doubles, on a vocabulary of more than one vector and wide logits.
TEST(VocabularyLoss, InFloatsIsThatInDoubles) {
    torch::manual_seed(4);
    const VocabularyLossOptions options{.temperature = 1.5, .text_share = 0.25};
    const auto normal = [](std::int64_t r, std::int64_t c) { return torch::randn({r, c}, torch::kFloat64) * 3; };
    const Inputs in{{normal(9, 12).requires_grad_(), normal(1001, 12).requires_grad_()},
                    {normal(9, 12), normal(1001, 12)},
                    torch::randint(1001, {9}, torch::kInt64)};
    const auto floats = [](const Tensor& x) {
        return x.detach().to(torch::kFloat32).requires_grad_(x.requires_grad());
    };
    const Head student{floats(in.student.hidden_NE), floats(in.student.matrix_VE)};
    const Head teacher{floats(in.teacher.hidden_NE), floats(in.teacher.matrix_VE)};
    const auto expected = vocabulary_loss(in.student, in.teacher, in.targets_N, options);
    const auto got = vocabulary_loss(student, teacher, in.targets_N, options);
    EXPECT_NEAR(got.item<double>(), expected.item<double>(), 1e-5 * expected.item<double>());
    expected.backward();
    got.backward();
    const auto error = [](const Tensor& gradient, const Tensor& exact) {
        return ((gradient.to(torch::kFloat64) - exact).norm() / exact.norm()).item<double>();
    };
    EXPECT_LT(error(student.hidden_NE.grad(), in.student.hidden_NE.grad()), 1e-5);
    EXPECT_LT(error(student.matrix_VE.grad(), in.student.matrix_VE.grad()), 1e-5);
}

TEST(VocabularyLoss, OfATargetOutsideTheVocabularyIsRefused) {
    auto in = inputs();
    in.targets_N[17] = 30;
    EXPECT_THROW(vocabulary_loss(in.student, in.teacher, in.targets_N, {.text_share = 1}), std::logic_error);
}

TEST(VocabularyLoss, OfFewerTargetsThanRowsIsRefused) {
    auto in = inputs();
    in.targets_N = in.targets_N.slice(0, 0, rows - 1);
    EXPECT_THROW(vocabulary_loss(in.student, in.teacher, in.targets_N, {}), std::logic_error);
}

/// Training leaves out a batch whose loss is not finite.
TEST(VocabularyLoss, OfOneBrokenLogitIsNotFinite) {
    for (const auto dtype : {torch::kFloat64, torch::kFloat32, torch::kBFloat16}) {
        for (const float broken : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
            for (const double text_share : {0.0, 1.0}) {
                const auto logits = torch::randn({2, 100}).to(dtype);
                const auto teacher = torch::randn({2, 100}).to(dtype);
                logits[1][37] = broken;
                const auto loss =
                    logits_to_gradient(logits, teacher, torch::tensor({3, 4}), {.text_share = text_share});
                EXPECT_FALSE(std::isfinite(loss)) << dtype << ' ' << broken << ' ' << text_share;
            }
        }
    }
}

TEST(VocabularyLoss, OfTheTextNeedsNoTeacher) {
    auto in = inputs();
    in.teacher = {};
    EXPECT_GT(vocabulary_loss(in.student, in.teacher, in.targets_N, {.text_share = 1}).item<double>(), 0);
    EXPECT_THROW(vocabulary_loss(in.student, in.teacher, in.targets_N, {}), std::logic_error);
}

TEST(VocabularyLoss, OfTheTeacherItselfIsZero) {
    auto in = inputs();
    in.teacher = {in.student.hidden_NE.detach(), in.student.matrix_VE.detach()};
    const auto loss = vocabulary_loss(in.student, in.teacher, in.targets_N, {});
    EXPECT_NEAR(loss.item<double>(), 0, 1e-9);
    loss.backward();
    EXPECT_LT(in.student.hidden_NE.grad().abs().max().item<double>(), 1e-12);
}

TEST(VocabularyLoss, WithRoundedProductsStaysClose) {
    const auto exact = inputs();
    const auto expected = torch::autograd::grad({whole(exact, {})}, {exact.student.hidden_NE, exact.student.matrix_VE});
    const auto floats = [](const Tensor& x) { return x.detach().to(torch::kFloat32); };
    const Head student{floats(exact.student.hidden_NE).requires_grad_(),
                       floats(exact.student.matrix_VE).requires_grad_()};
    const Head teacher{floats(exact.teacher.hidden_NE), floats(exact.teacher.matrix_VE)};
    {
        const model::Autocast autocast(torch::kCPU, true);
        const auto loss = vocabulary_loss(student, teacher, exact.targets_N, {});
        const double of_floats = whole(exact, {}).item<double>();
        EXPECT_NEAR(loss.item<double>(), of_floats, 0.01 * of_floats);
        loss.backward();
    }
    const auto relative = [](const Tensor& got, const Tensor& gradient) {
        return ((got - gradient).norm() / gradient.norm()).item<double>();
    };
    EXPECT_LT(relative(student.hidden_NE.grad(), expected[0]), 0.02);
    EXPECT_LT(relative(student.matrix_VE.grad(), expected[1]), 0.02);
}

/// An output matrix that does not learn costs no gradient.
TEST(VocabularyLoss, MakesNoGradientOfAFrozenMatrix) {
    auto in = inputs();
    in.student.matrix_VE = in.student.matrix_VE.detach();
    vocabulary_loss(in.student, in.teacher, in.targets_N, {}).backward();
    EXPECT_FALSE(in.student.matrix_VE.grad().defined());
    EXPECT_TRUE(in.student.hidden_NE.grad().defined());
}

}  // namespace
}  // namespace mha2mla::finetune
