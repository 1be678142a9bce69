#include "core/random.h"

#include <gtest/gtest.h>

namespace mha2mla::core {
namespace {

TEST(Random, IsTheSameOnEveryMachine) {
    // The C++ standard fixes mt19937_64: its 10,000th number from seed 5489 is 9981545732273789042.
    Random random(5489);
    double number = 0;
    for (int i = 0; i < 10'000; ++i) number = random.uniform();
    EXPECT_EQ(number, static_cast<double>(9981545732273789042ull >> 11) * 0x1p-53);
}

TEST(Random, StaysBelowItsBound) {
    Random random(1);
    int counts[3] = {};
    for (int i = 0; i < 3000; ++i) {
        const auto value = random.below(3);
        ASSERT_LT(value, 3u);
        ++counts[value];
    }
    for (const int count : counts) EXPECT_NEAR(count, 1000, 150);
    EXPECT_EQ(random.below(1), 0u);
}

}  // namespace
}  // namespace mha2mla::core
