#include "finetune/options.h"

#include <gtest/gtest.h>

#include "checkpoint/test_support.h"
#include "finetune/schedule.h"

namespace mha2mla::finetune {
namespace {

using checkpoint::test::error_of;

TEST(ParseStages, ReadsNamesAndShares) {
    const auto stages = parse_stages("layerwise:0.4,distill,cross-entropy:2");
    const std::vector<Stage> expected{
        {Objective::layerwise, 0.4}, {Objective::distill, 1}, {Objective::cross_entropy, 2}};
    EXPECT_EQ(stages, expected);
    EXPECT_EQ(name_of(stages), "layerwise:0.4,distill,cross-entropy:2");
}

TEST(ParseStages, RefusesAnythingElse) {
    for (const std::string text :
         {"", "distil", "distill:", "distill:0", "distill:-1", "distill:1x", "distill:nan", "distill,,layerwise"}) {
        EXPECT_NE(error_of([&] { parse_stages(text); }).find("--objective"), std::string::npos) << text;
    }
}

TEST(LearningRate, RisesStaysAndFallsAsOneMinusTheRoot) {
    const Schedule schedule{.learning_rate = 1, .warmup = 0.1, .cooldown = 0.5, .decay = Decay::inverse_sqrt};
    constexpr std::int64_t steps = 100;
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 0, steps), 0.1);
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 9, steps), 1);
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 55, steps), 1);
    EXPECT_NEAR(learning_rate(schedule, 10 + 45 + 20, steps), 1 - std::sqrt(20.0 / 45), 1e-12);
    EXPECT_GT(learning_rate(schedule, 99, steps), 0);
    EXPECT_LT(learning_rate(schedule, 99, steps), 0.02);
}

TEST(LearningRate, FollowsACosineOrStays) {
    Schedule schedule{.learning_rate = 2, .warmup = 0, .decay = Decay::cosine};
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 0, 10), 2);
    EXPECT_NEAR(learning_rate(schedule, 5, 10), 1, 1e-12);
    schedule.decay = Decay::none;
    EXPECT_DOUBLE_EQ(learning_rate(schedule, 9, 10), 2);
}

TEST(LearningRate, OfASingleStepIsFinite) {
    for (const double warmup : {0.0, 0.5, 1.0}) {
        const double rate = learning_rate({.learning_rate = 1, .warmup = warmup}, 0, 1);
        EXPECT_GT(rate, 0);
        EXPECT_LE(rate, 1);
    }
}

}  // namespace
}  // namespace mha2mla::finetune
