#include "model/vector_loops.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <set>
#include <torch/torch.h>

namespace mha2mla::model {
namespace {

TEST(VectorLoops, ExpIsThatOfDoubles) {
    for (double x = -60; x <= 60; x += 0.003) {
        const auto number = static_cast<float>(x);
        const double expected = std::exp(static_cast<double>(number));
        EXPECT_NEAR(static_cast<double>(exp_of(number)), expected, 3e-7 * expected) << x;
    }
}

TEST(VectorLoops, RoundToBf16AsLibTorchDoes) {
    for (std::uint32_t upper = 0; upper <= 0xffff; ++upper) {
        for (const std::uint32_t lower : {0U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU}) {
            const auto number = std::bit_cast<float>(upper << 16 | lower);
            if (std::isnan(number)) continue;
            c10::BFloat16 rounded;
            store(number, rounded);
            ASSERT_EQ(rounded.x, c10::BFloat16(number).x) << number;
        }
    }
}

/// Without OpenMP, at::parallel_for calls everything from one thread.
TEST(VectorLoops, AreSharedOutToThreads) {
    const int threads = torch::get_num_threads();
    torch::set_num_threads(3);
    std::array<int, 3> called_by{-1, -1, -1};
    at::parallel_for(0, 3, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) called_by[static_cast<std::size_t>(i)] = at::get_thread_num();
    });
    torch::set_num_threads(threads);
    EXPECT_EQ(std::set<int>(called_by.begin(), called_by.end()).size(), 3u);
}

}  // namespace
}  // namespace mha2mla::model
