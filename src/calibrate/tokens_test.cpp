#include "calibrate/tokens.h"

#include <gtest/gtest.h>

namespace mha2mla::calibrate {
namespace {

TEST(HoldOut, TakesTheLastEighthAndOfTwoWindowsOne) {
    data::TextWindows tokens{.windows = std::vector<std::vector<int>>(16, {1, 2}), .origin = "numbers"};
    tokens.windows.back() = {3};
    const auto all = record_of(tokens);
    hold_out(tokens);
    EXPECT_EQ(tokens.held_out, (std::vector<std::vector<int>>{{1, 2}, {3}}));
    EXPECT_EQ(tokens.windows.size(), 14u);
    EXPECT_EQ(record_of(tokens), all) << "a record is of all windows";
    data::TextWindows two{.windows = {{1}, {2}}, .origin = "numbers"};
    hold_out(two);
    EXPECT_EQ(two.held_out, (std::vector<std::vector<int>>{{2}}));
}

TEST(HoldOut, LeavesOneWindowAlone) {
    data::TextWindows one{.windows = {{1, 2}}, .origin = "numbers"};
    hold_out(one);
    EXPECT_TRUE(one.held_out.empty());
    EXPECT_EQ(one.windows.size(), 1u);
}

}  // namespace
}  // namespace mha2mla::calibrate
