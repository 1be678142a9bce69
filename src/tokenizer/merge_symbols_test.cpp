#include "tokenizer/merge_symbols.h"

#include <gtest/gtest.h>

#include "core/random.h"

namespace mha2mla::tokenizer {
namespace {

MergeTable table_of(const std::vector<std::array<int, 3>>& rules) {
    MergeTable table(rules.size());
    std::uint32_t rank = 0;
    for (const auto& [left, right, merged] : rules) table.add(left, right, {rank++, merged});
    return table;
}

std::vector<int> merged(std::vector<int> ids, const MergeTable& table, std::size_t begin = 0) {
    merge_symbols(ids, begin, table);
    return ids;
}

TEST(MergeSymbols, TheLowestRankGoesFirst) {
    const auto table = table_of({{2, 3, 10}, {1, 2, 11}});
    EXPECT_EQ(merged({1, 2, 3}, table), (std::vector{1, 10}));
    EXPECT_EQ(merged({1, 2, 2, 3}, table), (std::vector{11, 10}));
}

TEST(MergeSymbols, TheLeftmostOfEqualsGoesFirst) {
    const auto table = table_of({{1, 1, 10}});
    EXPECT_EQ(merged({1, 1, 1}, table), (std::vector{10, 1}));
    EXPECT_EQ(merged({1, 1, 1, 1, 1}, table), (std::vector{10, 10, 1}));
}

TEST(MergeSymbols, MergesWhatMergingMade) {
    const auto table = table_of({{1, 2, 10}, {10, 10, 11}, {11, 3, 12}});
    EXPECT_EQ(merged({1, 2, 1, 2, 3}, table), (std::vector{12}));
}

TEST(MergeSymbols, ARepeatedRuleCountsAtItsLastPlace) {
    const auto table = table_of({{1, 2, 10}, {2, 3, 11}, {1, 2, 10}});
    EXPECT_EQ(merged({1, 2, 3}, table), (std::vector{1, 11}));
}

TEST(MergeSymbols, LeavesWhatStandsBeforeAlone) {
    const auto table = table_of({{1, 2, 10}});
    EXPECT_EQ(merged({1, 2, 1, 2}, table, 1), (std::vector{1, 2, 10}));
    EXPECT_EQ(merged({1, 2}, table, 2), (std::vector{1, 2}));
}

/// The definition: look at all pairs, merge the leftmost of the lowest rank, begin again.
std::vector<int> merged_by_definition(std::vector<int> ids, const MergeTable& table) {
    while (true) {
        auto best = ids.size();
        for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
            const auto rank = table.find(ids[i], ids[i + 1]).rank;
            if (rank == MergeTable::no_rank) continue;
            if (best == ids.size() || rank < table.find(ids[best], ids[best + 1]).rank) best = i;
        }
        if (best == ids.size()) return ids;
        ids[best] = table.find(ids[best], ids[best + 1]).id;
        ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
}

TEST(MergeSymbols, ShortAndLongWordsFollowTheDefinition) {
    core::Random random(7);
    const auto below = [&](int bound) { return static_cast<int>(random.below(static_cast<std::uint64_t>(bound))); };
    std::vector<std::array<int, 3>> rules;
    for (int merged_id = 4; merged_id < 60; ++merged_id)
        rules.push_back({below(merged_id), below(merged_id), merged_id});
    const auto table = table_of(rules);
    for (int length = 0; length < 200; ++length) {
        std::vector<int> ids(static_cast<std::size_t>(length));
        for (int& id : ids) id = below(4);
        EXPECT_EQ(merged(ids, table), merged_by_definition(ids, table)) << length;
    }
}

TEST(MergeTable, HoldsEveryPair) {
    MergeTable table(1000);
    for (int i = 0; i < 1000; ++i) table.add(i, 7 * i, {static_cast<std::uint32_t>(i), i + 1});
    for (int i = 0; i < 1000; ++i) {
        EXPECT_EQ(table.find(i, 7 * i).id, i + 1);
        EXPECT_EQ(table.find(i, 7 * i + 1).rank, MergeTable::no_rank);
    }
}

}  // namespace
}  // namespace mha2mla::tokenizer
