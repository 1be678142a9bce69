#include "convert/select.h"

#include <algorithm>
#include <cstddef>
#include <fmt/format.h>
#include <numeric>

#include "core/error.h"

namespace mha2mla::convert {
namespace {

[[noreturn]] void reject_table(const std::string& what, const std::string& expected, const std::string& got) {
    throw core::Error({.what = "the rank table " + what,
                       .expected = expected,
                       .got = got,
                       .where = "--select table",
                       .remedy = "pass the table that was made for this model"});
}

void check_shape(const checkpoint::RankTable& table, const checkpoint::ModelConfig& source) {
    const bool fits = table.layers == source.num_hidden_layers && table.kv_heads == source.num_key_value_heads &&
                      table.head_dim == source.head_dim;
    if (fits) return;
    reject_table(
        "does not fit the model",
        fmt::format("[{}, {}, {}]", source.num_hidden_layers, source.num_key_value_heads, source.head_dim),
        fmt::format("[{}, {}, {}] (layers, KV heads, head dims)", table.layers, table.kv_heads, table.head_dim));
}

/// The ranks of a head's pairs, which must be a permutation that both halves agree on.
std::vector<int> head_ranks(const checkpoint::RankTable& table, int layer, int kv_head) {
    const int pairs = table.head_dim / 2;
    std::vector<bool> seen(static_cast<std::size_t>(pairs));
    std::vector<int> ranks;
    for (int pair = 0; pair < pairs; ++pair) {
        const int rank = table.at(layer, kv_head, pair);
        const int twin = table.at(layer, kv_head, pair + pairs);
        if (rank != twin || rank >= pairs || seen[static_cast<std::size_t>(rank)]) {
            reject_table(fmt::format("is inconsistent at layer {}, head {}, pair {}", layer, kv_head, pair),
                         fmt::format("each rank of 0..{} once, the same for both halves of a pair", pairs - 1),
                         fmt::format("{} and {}", rank, twin));
        }
        seen[static_cast<std::size_t>(rank)] = true;
        ranks.push_back(rank);
    }
    return ranks;
}

}  // namespace

std::vector<int> select_by_rule(Selection selection, int pairs, int count) {
    core::invariant(count >= 1 && count <= pairs, "a rule keeps between one and all pairs");
    const bool uniform = selection == Selection::uniform;
    core::invariant(uniform || selection == Selection::high || selection == Selection::low, "a rule needs no data");
    const int first = selection == Selection::low ? pairs - count : 0;
    const int step = uniform ? pairs / count : 1;
    std::vector<int> chosen;
    for (int i = 0; i < count; ++i) chosen.push_back(first + i * step);
    return chosen;
}

std::vector<std::vector<int>> two_norm_ranks(const calibrate::PairNorms& norms) {
    const auto kv_heads = norms.key_GP.size(0);
    const auto pairs = norms.key_GP.size(1);
    const auto score_GP = norms.key_GP * norms.query_HP.view({kv_heads, -1, pairs}).sum(1);
    const auto order_GP = std::get<1>(score_GP.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true)).contiguous();
    std::vector<std::vector<int>> ranks(static_cast<std::size_t>(kv_heads),
                                        std::vector<int>(static_cast<std::size_t>(pairs)));
    const auto order = order_GP.accessor<std::int64_t, 2>();
    for (std::int64_t head = 0; head < kv_heads; ++head) {
        for (std::int64_t rank = 0; rank < pairs; ++rank) {
            ranks[static_cast<std::size_t>(head)][static_cast<std::size_t>(order[head][rank])] = static_cast<int>(rank);
        }
    }
    return ranks;
}

HeadPairs keep_best(const std::vector<std::vector<int>>& ranks, int count) {
    HeadPairs chosen;
    for (const auto& head : ranks) {
        auto& pairs = chosen.emplace_back();
        for (std::size_t pair = 0; pair < head.size(); ++pair) {
            if (head[pair] < count) pairs.push_back(static_cast<int>(pair));
        }
    }
    return chosen;
}

std::vector<HeadPairs> select_by_table(const checkpoint::RankTable& table, const checkpoint::ModelConfig& source,
                                       int count) {
    check_shape(table, source);
    std::vector<HeadPairs> layers;
    for (int layer = 0; layer < table.layers; ++layer) {
        std::vector<std::vector<int>> ranks;
        for (int head = 0; head < table.kv_heads; ++head) ranks.push_back(head_ranks(table, layer, head));
        layers.push_back(keep_best(ranks, count));
    }
    return layers;
}

}  // namespace mha2mla::convert
