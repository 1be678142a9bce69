#include "bench/read_bandwidth.h"

#include <gtest/gtest.h>

#include "bench/median.h"

namespace mha2mla::bench {
namespace {

TEST(Median, IsTheMiddleInAnyOrder) {
    EXPECT_EQ(median({3, 1, 2}), 2);
    EXPECT_EQ(median({7}), 7);
    EXPECT_EQ(median({4, 1, 3, 2}), 3);
}

TEST(ReadBandwidth, ReadsTheWholeBuffer) {
    core::ThreadPool pool(2);
    const double bytes_per_second = ReadBandwidth(pool).measure();  // checks its own sum
    EXPECT_GT(bytes_per_second, 1e7);
    EXPECT_LT(bytes_per_second, 1e14);
}

}  // namespace
}  // namespace mha2mla::bench
