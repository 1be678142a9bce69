#include "bench/machine_load.h"

#include <gtest/gtest.h>

namespace mha2mla::bench {
namespace {

TEST(MachineLoad, ReadsTheKernelsLine) {
    const auto load = parse_load("1.25 0.18 0.12 4/480 11206\n");
    ASSERT_TRUE(load.has_value());
    EXPECT_EQ(load->load_average, 1.25);
    EXPECT_EQ(load->runnable, 3) << "the one that asks is running itself";
    EXPECT_EQ(parse_load("0.00 0.00 0.00 0/80 9")->runnable, 0);
}

TEST(MachineLoad, KnowsNothingWhereTheLineIsOfAnotherForm) {
    for (const char* line : {"", "1.25", "1.25 0.18 0.12", "1.25 0.18 0.12 4 480", "a b c 4/480 1"}) {
        EXPECT_FALSE(parse_load(line).has_value()) << line;
    }
}

TEST(MachineLoad, IsNeverNegative) {
    const MachineLoad load = machine_load();
    EXPECT_GE(load.load_average, 0);
    EXPECT_GE(load.runnable, 0);
}

}  // namespace
}  // namespace mha2mla::bench
