#include "model/one_thread_each.h"

#include <ATen/Parallel.h>
#include <atomic>
#include <barrier>
#include <gtest/gtest.h>
#include <stdexcept>
#include <thread>
#include <torch/torch.h>
#include <vector>

namespace mha2mla::model {
namespace {

class OneThreadEachTest : public testing::Test {
protected:
    OneThreadEachTest() { torch::set_num_threads(3); }
    ~OneThreadEachTest() override { torch::set_num_threads(threads_); }

private:
    const int threads_ = torch::get_num_threads();
};

TEST_F(OneThreadEachTest, EveryTaskRunsOnce) {
    std::vector<std::atomic<int>> calls(100);
    one_thread_each(100, [&](std::int64_t i) { ++calls[static_cast<std::size_t>(i)]; });
    for (const auto& count : calls) EXPECT_EQ(count, 1);
    one_thread_each(0, [](std::int64_t) { FAIL(); });
}

TEST_F(OneThreadEachTest, AsManyRunAtOnceAsLibTorchHasThreads) {
    std::barrier all_are_here(3);  // a test that hangs where there are fewer
    one_thread_each(3, [&](std::int64_t) { all_are_here.arrive_and_wait(); });
}

/// Neither LibTorch's operations nor loops of ours, which have a number of threads of their own.
TEST_F(OneThreadEachTest, OperationsWithinShareNothingOut) {
    std::atomic<int> shared_out{0};
    one_thread_each(3, [&](std::int64_t) {
        const auto here = std::this_thread::get_id();
        at::parallel_for(0, 3, 1, [&](std::int64_t, std::int64_t) {
            if (std::this_thread::get_id() != here) ++shared_out;
        });
        if (torch::get_num_threads() != 1) ++shared_out;
    });
    EXPECT_EQ(shared_out, 0);
    EXPECT_EQ(torch::get_num_threads(), 3);
}

TEST_F(OneThreadEachTest, TasksMakeGradients) {
    const torch::NoGradGuard no_gradients;
    const auto x = torch::ones({3}).requires_grad_();
    one_thread_each(1, [&](std::int64_t) { (2 * x).sum().backward(); });
    EXPECT_TRUE(torch::equal(x.grad(), torch::full({3}, 2.0)));
}

TEST_F(OneThreadEachTest, AnExceptionOfATaskReachesTheCaller) {
    EXPECT_THROW(one_thread_each(5,
                                 [](std::int64_t i) {
                                     if (i == 2) throw std::runtime_error("broken");
                                 }),
                 std::runtime_error);
}

}  // namespace
}  // namespace mha2mla::model
