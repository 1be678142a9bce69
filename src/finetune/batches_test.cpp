#include "finetune/batches.h"

#include <gtest/gtest.h>
#include <set>

namespace mha2mla::finetune {
namespace {

std::vector<std::vector<int>> windows(std::size_t count, std::size_t tokens) {
    return std::vector<std::vector<int>>(count, std::vector<int>(tokens, 1));
}

Options options(std::int64_t tokens, std::int64_t batch_tokens) {
    Options result;
    result.stages = {{Objective::layerwise, 1}, {Objective::distill, 3}};
    result.tokens = tokens;
    result.batch_tokens = batch_tokens;
    return result;
}

std::vector<std::size_t> order_of(const std::vector<std::vector<Batch>>& plan) {
    std::vector<std::size_t> order;
    for (const auto& stage : plan) {
        for (const auto& batch : stage) order.insert(order.end(), batch.windows.begin(), batch.windows.end());
    }
    return order;
}

TEST(PlanBatches, GivesEachStageItsShare) {
    const auto plan = plan_batches(windows(100, 10), options(800, 40));
    ASSERT_EQ(plan.size(), 2u);
    EXPECT_EQ(plan[0].size(), 5u);
    EXPECT_EQ(plan[1].size(), 15u);
    for (const auto& batch : plan[1]) EXPECT_EQ(batch.tokens, 40);
}

TEST(PlanBatches, ShowsEveryWindowBeforeAnyTwice) {
    const auto order = order_of(plan_batches(windows(7, 10), options(160, 20)));
    ASSERT_EQ(order.size(), 16u);
    const std::vector first(order.begin(), order.begin() + 7);
    const std::vector second(order.begin() + 7, order.begin() + 14);
    EXPECT_EQ(std::set(first.begin(), first.end()).size(), 7u);
    EXPECT_EQ(std::set(second.begin(), second.end()).size(), 7u);
    EXPECT_NE(first, second);
}

TEST(PlanBatches, DependsOnTheSeed) {
    auto other = options(400, 40);
    const auto first = order_of(plan_batches(windows(40, 10), other));
    EXPECT_EQ(order_of(plan_batches(windows(40, 10), other)), first);
    other.seed = 1;
    EXPECT_NE(order_of(plan_batches(windows(40, 10), other)), first);
}

TEST(PlanBatches, LearnsFromFewTokensThanABatchToo) {
    const auto plan = plan_batches(windows(3, 10), options(4, 1000));
    EXPECT_EQ(plan[0].size(), 1u);
    EXPECT_EQ(plan[0][0].windows.size(), 1u);
}

TEST(PlanBatches, GivesTheSmallestShareABatch) {
    auto uneven = options(400, 40);
    uneven.stages[0].share = 1e-6;
    EXPECT_EQ(plan_batches(windows(9, 10), uneven)[0].size(), 1u);
}

TEST(MicroBatch, PadsAndKnowsWhatIsNoPadding) {
    const std::vector<std::vector<int>> all{{1, 2, 3, 4}, {9, 9, 9, 9}, {5, 6}};
    const MicroBatch batch(all, std::vector<std::size_t>{0, 2}, torch::kCPU);
    EXPECT_TRUE(torch::equal(batch.ids_BT, torch::tensor({{1, 2, 3, 4}, {5, 6, 0, 0}}, torch::kInt64)));
    EXPECT_TRUE(torch::equal(batch.positions(), torch::tensor({0, 1, 2, 3, 4, 5}, torch::kInt64)));
    EXPECT_TRUE(torch::equal(batch.scored_positions(), torch::tensor({0, 1, 2, 4}, torch::kInt64)));
}

}  // namespace
}  // namespace mha2mla::finetune
