#include "data/document_windows.h"

#include <gtest/gtest.h>

namespace mha2mla::data {
namespace {

using Windows = std::vector<std::vector<int>>;

TEST(DocumentWindows, EndWhereADocumentDoes) {
    EXPECT_EQ(document_windows({{1, 2, 3, 4, 5}, {6, 7, 8}}, 3, 1), (Windows{{1, 2, 3}, {4, 5}, {6, 7, 8}}));
}

TEST(DocumentWindows, DropShortRests) {
    EXPECT_EQ(document_windows({{1, 2, 3, 4}, {5}, {}, {6, 7, 8, 9, 10}}, 3, 2),
              (Windows{{1, 2, 3}, {6, 7, 8}, {9, 10}}));
}

TEST(DocumentWindows, AreNoneOfNothing) { EXPECT_TRUE(document_windows({}, 8, 1).empty()); }

TEST(MixEvenly, TakesAsManyOfEachText) {
    EXPECT_EQ(mix_evenly({{{1}, {2}, {3}, {4}}, {{5}, {6}, {7}, {8}, {9}, {10}}}, 5),
              (Windows{{1}, {3}, {5}, {7}, {9}}));
}

TEST(MixEvenly, GivesTheShareOfAShortTextToTheOthers) {
    EXPECT_EQ(mix_evenly({{{1}, {2}, {3}, {4}}, {{5}}, {}}, 4), (Windows{{5}, {1}, {2}, {3}}));
}

TEST(MixEvenly, CountsTokensAndNotWindows) {
    EXPECT_EQ(mix_evenly({{{1, 2, 3, 4}, {5, 6, 7, 8}}, {{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}}}, 8),
              (Windows{{1, 2, 3, 4}, {1}, {3}, {5}, {7}}));
}

TEST(MixEvenly, IsAllWhereThereIsNoMore) { EXPECT_EQ(mix_evenly({{{1}}, {{2}, {3}}}, 100).size(), 3u); }

}  // namespace
}  // namespace mha2mla::data
