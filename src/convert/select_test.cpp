#include "convert/select.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <numeric>

#include "core/error.h"

namespace mha2mla::convert {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

checkpoint::ModelConfig config_of(int layers, int heads, int kv_heads, int head_dim) {
    checkpoint::ModelConfig config;
    config.num_hidden_layers = layers;
    config.num_attention_heads = heads;
    config.num_key_value_heads = kv_heads;
    config.head_dim = head_dim;
    return config;
}

TEST(SelectByRule, HeadDim64) {
    EXPECT_THAT(select_by_rule(Selection::high, 32, 4), ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(select_by_rule(Selection::low, 32, 4), ElementsAre(28, 29, 30, 31));
    EXPECT_THAT(select_by_rule(Selection::uniform, 32, 4), ElementsAre(0, 8, 16, 24));
}

TEST(SelectByRule, HeadDim128) {
    EXPECT_THAT(select_by_rule(Selection::high, 64, 8), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
    EXPECT_THAT(select_by_rule(Selection::low, 64, 8), ElementsAre(56, 57, 58, 59, 60, 61, 62, 63));
    EXPECT_THAT(select_by_rule(Selection::uniform, 64, 8), ElementsAre(0, 8, 16, 24, 32, 40, 48, 56));
}

TEST(SelectByRule, AllPairs) {
    for (const auto rule : {Selection::high, Selection::low, Selection::uniform}) {
        EXPECT_THAT(select_by_rule(rule, 3, 3), ElementsAre(0, 1, 2));
    }
}

/// Two KV heads of two query heads each, four pairs.
calibrate::PairNorms example_norms() {
    const auto query = torch::tensor({{1.0, 1.0, 1.0, 1.0},  //
                                      {1.0, 2.0, 3.0, 0.0},
                                      {5.0, 1.0, 1.0, 1.0},
                                      {0.0, 0.0, 0.0, 9.0}},
                                     torch::kFloat64);
    const auto key = torch::tensor({{1.0, 3.0, 2.0, 4.0}, {2.0, 2.0, 2.0, 1.0}}, torch::kFloat64);
    return {query, key};
}

TEST(TwoNorm, MultipliesKeysBySummedQueriesOfTheirGroup) {
    // Scores: head 0: 2, 9, 8, 4. Head 1: 10, 2, 2, 10: equal scores rank by index.
    const auto ranks = two_norm_ranks(example_norms());
    EXPECT_THAT(ranks, ElementsAre(ElementsAre(3, 0, 1, 2), ElementsAre(0, 2, 3, 1)));
    EXPECT_THAT(keep_best(ranks, 2), ElementsAre(ElementsAre(1, 2), ElementsAre(0, 3)));
}

/// A table as the reference publishes it: the rank of each dim, both halves alike.
checkpoint::RankTable table_of(const std::vector<std::vector<std::vector<int>>>& layers) {
    checkpoint::RankTable table;
    table.layers = static_cast<int>(layers.size());
    table.kv_heads = static_cast<int>(layers[0].size());
    table.head_dim = 2 * static_cast<int>(layers[0][0].size());
    for (const auto& heads : layers) {
        for (const auto& head : heads) {
            for (int half = 0; half < 2; ++half) {
                for (const int rank : head) table.rank.push_back(static_cast<std::uint8_t>(rank));
            }
        }
    }
    return table;
}

TEST(Table, OfTheSameStatisticsGivesTheSamePairs) {
    torch::manual_seed(4);
    const auto norms =
        calibrate::PairNorms{torch::rand({6, 16}, torch::kFloat64), torch::rand({3, 16}, torch::kFloat64)};
    const auto ranks = two_norm_ranks(norms);
    for (const int count : {1, 4, 16}) {
        const auto by_table = select_by_table(table_of({ranks, ranks}), config_of(2, 6, 3, 32), count);
        ASSERT_EQ(by_table.size(), 2u);
        EXPECT_EQ(by_table[0], keep_best(ranks, count));
        EXPECT_EQ(by_table[1], keep_best(ranks, count));
        for (const auto& head : by_table[0]) EXPECT_EQ(head.size(), static_cast<std::size_t>(count));
    }
}

TEST(Table, OfAnotherModelIsRefused) {
    const auto table = table_of({{{0, 1}}});
    EXPECT_NO_THROW(select_by_table(table, config_of(1, 2, 1, 4), 1));
    EXPECT_THROW(select_by_table(table, config_of(2, 2, 1, 4), 1), core::Error);
    EXPECT_THROW(select_by_table(table, config_of(1, 2, 2, 4), 1), core::Error);
    EXPECT_THROW(select_by_table(table, config_of(1, 2, 1, 8), 1), core::Error);
}

TEST(Table, InconsistentIsRefused) {
    EXPECT_THROW(select_by_table(table_of({{{0, 0}}}), config_of(1, 1, 1, 4), 1), core::Error);
    EXPECT_THROW(select_by_table(table_of({{{0, 7}}}), config_of(1, 1, 1, 4), 1), core::Error);
    auto halves_differ = table_of({{{0, 1}}});
    std::swap(halves_differ.rank[2], halves_differ.rank[3]);
    EXPECT_THROW(select_by_table(halves_differ, config_of(1, 1, 1, 4), 1), core::Error);
}

TEST(Table, PublishedFor135MKeepsFourPairsOfEachHead) {
    const char* variable = std::getenv("MHA2MLA_DATA");
    const auto path = fs::path(variable ? variable : MHA2MLA_SHARED_DATA) / "ranks/135M_2norm_rank.pth";
    if (!fs::exists(path)) GTEST_SKIP() << path.string() << " is absent";
    const auto layers = select_by_table(checkpoint::read_rank_table(path), config_of(30, 9, 3, 64), 4);
    ASSERT_EQ(layers.size(), 30u);
    for (const auto& heads : layers) {
        ASSERT_EQ(heads.size(), 3u);
        for (const auto& pairs : heads) {
            EXPECT_EQ(pairs.size(), 4u);
            EXPECT_TRUE(std::is_sorted(pairs.begin(), pairs.end()));
        }
    }
    // Read off the file with PyTorch: ranks 0, 1, 2 and 3 of the first head belong to pairs 23, 22, 17 and 19.
    EXPECT_THAT(layers[0][0], ElementsAre(17, 19, 22, 23));
}

}  // namespace
}  // namespace mha2mla::convert
