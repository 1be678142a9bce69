#include "finetune/losses.h"

#include <gtest/gtest.h>

#include "finetune/latent_balance.h"
#include "finetune/parameters.h"
#include "finetune/test_support.h"

namespace mha2mla::finetune {
namespace {

using checkpoint::test::TemporaryDirectory;
using torch::Tensor;

class LossTest : public testing::TestWithParam<Objective> {
protected:
    LossTest() : pair_(directory_.path()) {
        doubles_.dtype = torch::kFloat64;
        models_ = pair_.load(doubles_);
    }

    TemporaryDirectory directory_;
    test::TinyPair pair_;
    model::ModelOptions doubles_;
    Models models_;
    const std::vector<std::vector<int>> windows_ = test::tiny_windows();
};

/// Of some windows together, padded; the value with all gradients thrown away.
double value_of(Loss& loss, const MicroBatch& batch) { return loss.accumulate(batch, 0.25); }

TEST_P(LossTest, HasTheGradientsOfItsValue) {
    const auto parameters = choose_parameters(models_.student, Trained::attention);
    const auto loss = make_loss(GetParam(), models_, {});
    const MicroBatch batch(windows_, std::vector<std::size_t>{0, 1, 2}, torch::kCPU);
    value_of(*loss, batch);
    std::vector<Tensor> gradients;
    for (const auto& parameter : parameters) gradients.push_back(parameter.value.grad().clone());
    constexpr double h = 1e-5;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const auto direction = torch::randn_like(parameters[i].value);
        const auto moved = [&](double by) {
            const auto data = parameters[i].value.detach();
            data.add_(direction, by);
            const double value = value_of(*loss, batch);
            data.sub_(direction, by);
            return value;
        };
        const double expected = (moved(h) - moved(-h)) / (2 * h);
        EXPECT_NEAR((gradients[i] * direction).sum().item<double>(), expected, 1e-6 * (1 + std::abs(expected)))
            << parameters[i].name;
    }
}

TEST_P(LossTest, OfWindowsTogetherIsTheSumOfEach) {
    choose_parameters(models_.student, Trained::attention);
    const auto loss = make_loss(GetParam(), models_, {});
    double apart = 0;
    for (const std::size_t window : {0, 1, 2}) {
        apart += value_of(*loss, MicroBatch(windows_, std::vector{window}, torch::kCPU));
    }
    const MicroBatch together(windows_, std::vector<std::size_t>{0, 1, 2}, torch::kCPU);
    EXPECT_NEAR(value_of(*loss, together), apart, 1e-12 * std::abs(apart));
}

TEST_P(LossTest, GivesFrozenParametersAndTheTeacherNoGradient) {
    const auto chosen = choose_parameters(models_.student, Trained::latent);
    const auto source = pair_.load_source(doubles_);
    models_.teacher = make_teacher(source, false);
    value_of(*make_loss(GetParam(), models_, {}), MicroBatch(windows_, std::vector<std::size_t>{4}, torch::kCPU));
    EXPECT_EQ(chosen.size(), 2u * 7);  // of a layer: weight and bias of three matrices, and kv_b_proj
    for (const auto& item : models_.student->named_parameters()) {
        const bool learns = item.value().requires_grad();
        EXPECT_EQ(item.value().grad().defined(), learns) << item.key();
    }
    for (const auto& parameter : source->parameters()) EXPECT_FALSE(parameter.grad().defined());
}

INSTANTIATE_TEST_SUITE_P(Objectives, LossTest,
                         testing::Values(Objective::layerwise, Objective::distill, Objective::cross_entropy),
                         [](const auto& test) {
                             return test.param == Objective::cross_entropy ? std::string("text") : name_of(test.param);
                         });

/// Layers learn at once where something else than LibTorch runs the source.
TEST_F(LossTest, LayersThatLearnAtOnceLearnTheSame) {
    const MicroBatch batch(windows_, std::vector<std::size_t>{0, 1, 2}, torch::kCPU);
    Options rounded;
    rounded.bf16 = true;
    const auto learn = [&](int threads) {
        auto models = pair_.load();
        auto source = pair_.load_source();
        models.teacher = make_teacher(SourceNorms(source), std::make_unique<test::TorchStates>(source));
        const auto parameters = choose_parameters(models.student, Trained::attention);
        torch::set_num_threads(threads);
        std::vector<Tensor> learned{torch::tensor(value_of(*make_loss(Objective::layerwise, models, rounded), batch))};
        torch::set_num_threads(1);
        for (const auto& parameter : parameters) learned.push_back(parameter.value.grad());
        return learned;
    };
    const auto expected = learn(1);
    const auto got = learn(3);
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(torch::equal(got[i], expected[i])) << i;
}

TEST_F(LossTest, DistillOfTheTextAloneIsCrossEntropy) {
    choose_parameters(models_.student, Trained::attention);
    const MicroBatch batch(windows_, std::vector<std::size_t>{3, 5}, torch::kCPU);
    const auto text = make_loss(Objective::cross_entropy, models_, {});
    Options all_text;
    all_text.text_share = 1;
    EXPECT_EQ(value_of(*make_loss(Objective::distill, models_, all_text), batch), value_of(*text, batch));
}

TEST_F(LossTest, MeanNllIsThatOfTheLogits) {
    const torch::NoGradGuard no_gradients;
    double expected = 0;
    for (const auto& window : windows_) {
        const std::vector<std::int64_t> ids(window.begin(), window.end());
        const auto tokens = torch::tensor(ids, torch::kInt64);
        const auto log_p = models_.student(tokens.unsqueeze(0))[0].log_softmax(1);
        const auto of_next = log_p.slice(0, 0, -1).gather(1, tokens.slice(0, 1).unsqueeze(1));
        expected -= of_next.mean().item<double>() / static_cast<double>(windows_.size());
    }
    EXPECT_NEAR(mean_nll(models_.student, windows_, torch::kCPU), expected, 1e-10);
}

TEST_F(LossTest, BalancingLatentsChangesNoLogitAndComesUndone) {
    const torch::NoGradGuard no_gradients;
    const auto ids = torch::arange(15).unsqueeze(0);
    const auto& config = pair_.converted().config();
    const auto weight = models_.student->named_parameters()["model.layers.1.self_attn.kv_a_proj_with_mqa.weight"];
    weight[0] *= 64;  // one latent of a scale of its own
    weight[2] *= 0.01;
    const auto before = weight.clone();
    const auto logits = models_.student(ids);
    auto source = pair_.load_source(doubles_);
    const LatentBalance balance(models_.student, source, config);
    balance.apply();
    EXPECT_TRUE(torch::equal(models_.student(ids), logits));
    EXPECT_FALSE(torch::equal(weight, before));
    const auto keys = source->named_parameters()["model.layers.1.self_attn.k_proj.weight"];
    const auto wanted = keys.norm(2, 1).mean().item<double>();
    const auto ratios = weight.slice(0, 0, config.mla().kv_lora_rank[1]).norm(2, 1) / wanted;
    EXPECT_LT(ratios.max().item<double>(), 1.42);
    EXPECT_GT(ratios.min().item<double>(), 0.70);
    balance.undo();
    EXPECT_TRUE(torch::equal(weight, before));
}

TEST_F(LossTest, BalancingLatentsOfGroupsChangesNoLogitEither) {
    const torch::NoGradGuard no_gradients;
    auto config = pair_.converted().config();
    auto& mla = std::get<checkpoint::MlaConfig>(config.attention);
    mla.latent_groups = 2;
    for (int& rank : mla.kv_lora_rank) rank = 6;
    checkpoint::test::write_random_model(config, directory_.path() / "groups");
    const auto grouped = checkpoint::Checkpoint::open(directory_.path() / "groups");
    model::CausalLm student(grouped, doubles_);
    const auto weight = student->named_parameters()["model.layers.1.self_attn.kv_a_proj_with_mqa.weight"];
    weight[0] *= 64;
    weight[4] *= 0.01;  // of the second group
    const auto before = weight.clone();
    const auto ids = torch::arange(15).unsqueeze(0);
    const auto logits = student(ids);
    auto source = pair_.load_source(doubles_);
    const LatentBalance balance(student, source, config);
    balance.apply();
    EXPECT_TRUE(torch::equal(student(ids), logits));
    EXPECT_FALSE(torch::equal(weight, before));
    balance.undo();
    EXPECT_TRUE(torch::equal(weight, before));
}

}  // namespace
}  // namespace mha2mla::finetune
