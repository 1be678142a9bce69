#include "data/document_windows.h"

#include <gtest/gtest.h>

namespace mha2mla::data {
namespace {

using Windows = std::vector<std::vector<int>>;

TEST(DocumentWindows, EndWhereADocumentDoes) {
    EXPECT_EQ(document_windows({{1, 2, 3, 4, 5}, {6, 7, 8}}, 3, 1), (Windows{{1, 2, 3}, {4, 5}, {6, 7, 8}}));
}

TEST(DocumentWindows, DropShortRests) {
    EXPECT_EQ(document_windows({{1, 2, 3, 4}, {5}, {}, {6, 7, 8, 9, 10}}, 3, 2), (Windows{{1, 2, 3}, {6, 7, 8}, {9, 10}}));
}

TEST(DocumentWindows, AreNoneOfNothing) { EXPECT_TRUE(document_windows({}, 8, 1).empty()); }

}  // namespace
}  // namespace mha2mla::data
