#pragma once

#include <vector>

#include "tokenizer/merge_table.h"

namespace mha2mla::tokenizer {

/// Byte-pair merging of the tokens from `begin` on, in place: again and again the pair of the lowest rank, the leftmost
/// of equals, until no rule applies. O(n log n) time for n tokens (n < 2^31).
void merge_symbols(std::vector<int>& ids, std::size_t begin, const MergeTable& merges);

}  // namespace mha2mla::tokenizer
