#include "runtime/prefix_index.h"

#include <gtest/gtest.h>
#include <numeric>

namespace mha2mla::runtime {
namespace {

std::vector<int> text(int tokens, int first = 0) {
    std::vector<int> text(static_cast<std::size_t>(tokens));
    std::iota(text.begin(), text.end(), first);
    return text;
}

TEST(PrefixIndex, FindsTheLongestBeginningOfWholePages) {
    PrefixIndex index;
    index.add(1, text(100));
    index.add(2, text(300));
    const auto found = index.find(text(250));
    ASSERT_TRUE(found);
    EXPECT_EQ(found->holder, 2);
    EXPECT_EQ(found->tokens, 192);
    const auto first = index.find(text(65));
    ASSERT_TRUE(first);
    EXPECT_EQ(first->holder, 1) << "who was first";
    EXPECT_EQ(first->tokens, 64);
}

TEST(PrefixIndex, LeavesOneTokenToCompute) {
    PrefixIndex index;
    index.add(1, text(128));
    EXPECT_FALSE(index.find(text(64)));
    EXPECT_EQ(index.find(text(65))->tokens, 64);
    EXPECT_EQ(index.find(text(128))->tokens, 64);
    EXPECT_EQ(index.find(text(129))->tokens, 128);
    EXPECT_FALSE(index.find({}));
}

TEST(PrefixIndex, OnePageThatDiffersEndsTheMatch) {
    PrefixIndex index;
    index.add(1, text(192));
    auto other = text(192);
    other[70] = 5;
    EXPECT_EQ(index.find(other)->tokens, 64);
    other[3] = 5;
    EXPECT_FALSE(index.find(other)) << "a later page never matches alone";
}

TEST(PrefixIndex, WhoIsRemovedIsNotFound) {
    PrefixIndex index;
    index.add(1, text(64));
    index.add(1, text(150));
    index.add(2, text(192, 500));
    EXPECT_EQ(index.find(text(150))->tokens, 128) << "a longer text of the same holder";
    index.remove(1);
    EXPECT_FALSE(index.find(text(150)));
    EXPECT_EQ(index.find(text(193, 500))->holder, 2);
    index.remove(7);
}

TEST(PrefixIndex, TheLeastRecentOfTheRetiredGoesFirst) {
    PrefixIndex index;
    for (int holder = 1; holder <= 3; ++holder) index.add(holder, text(64, 1000 * holder));
    EXPECT_FALSE(index.least_recent());
    for (int holder = 1; holder <= 2; ++holder) index.retire(holder);
    EXPECT_EQ(index.least_recent(), 1);
    index.find(text(70, 1000));
    EXPECT_EQ(index.least_recent(), 2) << "the first was used since";
    index.remove(2);
    EXPECT_EQ(index.least_recent(), 1);
}

}  // namespace
}  // namespace mha2mla::runtime
