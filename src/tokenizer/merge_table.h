#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/function_ref.h"

namespace mha2mla::tokenizer {

/// The merge rules of a BPE: which pair of tokens becomes which token, and how early. Open addressing, at most half
/// full.
class MergeTable {
public:
    struct Merge {
        std::uint32_t rank;  ///< the smaller, the earlier
        int id;              ///< of the merged token
    };
    static constexpr std::uint32_t no_rank = std::numeric_limits<std::uint32_t>::max();

    explicit MergeTable(std::size_t merges) : entries_(std::bit_ceil(2 * merges + 2)) {}

    /// A repeated pair takes the later rank, as in Hugging Face's tokenizers. At most the announced number of calls.
    void add(int left, int right, Merge merge) {
        entries_[slot_of(key_of(left, right))] = {key_of(left, right), merge};
    }

    /// The rule of a pair; its rank is no_rank where there is none.
    Merge find(int left, int right) const { return entries_[slot_of(key_of(left, right))].merge; }

    /// Whether a rule joins two tokens of which `is_such(left, right)` holds.
    bool has_rule(core::FunctionRef<bool(int, int)> is_such) const {
        return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
            return entry.key != free_key && is_such(static_cast<int>(entry.key >> 32), static_cast<int>(entry.key));
        });
    }

private:
    struct Entry {
        std::uint64_t key = free_key;
        Merge merge{no_rank, -1};
    };
    static constexpr std::uint64_t free_key = std::numeric_limits<std::uint64_t>::max();

    static std::uint64_t key_of(int left, int right) {
        return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
    }

    /// Where the pair is, or where it belongs. Fibonacci hashing: the product's upper bits are the well mixed ones.
    std::size_t slot_of(std::uint64_t key) const {
        const std::size_t mask = entries_.size() - 1;
        std::size_t slot = ((key ^ (key >> 32)) * 0x9e3779b97f4a7c15u >> 32) & mask;
        while (entries_[slot].key != key && entries_[slot].key != free_key) slot = (slot + 1) & mask;
        return slot;
    }

    std::vector<Entry> entries_;
};

}  // namespace mha2mla::tokenizer
