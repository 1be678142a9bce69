#pragma once

#include <vector>

#include "calibrate/pair_norms.h"
#include "checkpoint/model_config.h"
#include "checkpoint/rank_table.h"
#include "convert/plan.h"

namespace mha2mla::convert {

/// The pairs of each KV head that keep their rotation, ascending.
using HeadPairs = std::vector<std::vector<int>>;

/// The rules that look at no data (arXiv 2502.14837 section 3.1), for a head of `pairs` rotary pairs of which `count`
/// are kept: high = 0..count-1 (pair 0 turns fastest), low = the last ones, uniform = every (pairs / count)-th from 0.
std::vector<int> select_by_rule(Selection selection, int pairs, int count);

/// Ranks of the pairs of each KV head, 0 = best, by score[g, i] = key[g, i] * sum over its query heads of query[h, i].
/// [G][P]; of equal scores the lower index ranks first.
std::vector<std::vector<int>> two_norm_ranks(const calibrate::PairNorms& norms);

/// The pairs whose rank is below `count`.
HeadPairs keep_best(const std::vector<std::vector<int>>& ranks, int count);

/// The pairs of each layer by a published rank table. Throws Error naming --select where it does not fit the model.
std::vector<HeadPairs> select_by_table(const checkpoint::RankTable& table, const checkpoint::ModelConfig& source,
                                       int count);

}  // namespace mha2mla::convert
