#include "tokenizer/merge_symbols.h"

#include <algorithm>
#include <array>
#include <functional>
#include <queue>

namespace mha2mla::tokenizer {
namespace {

/// Up to this many tokens, looking at every pair again is faster than keeping a queue.
constexpr std::size_t max_scanned = 48;

/// Merges few tokens: pairs[i] belongs to the pair (symbols[i], symbols[i + 1]). Returns how many are left.
std::size_t merge_by_scan(int* symbols, std::size_t count, const MergeTable& merges) {
    std::array<MergeTable::Merge, max_scanned> pairs;
    for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = merges.find(symbols[i], symbols[i + 1]);
    while (count > 1) {
        std::size_t best = 0;
        for (std::size_t i = 1; i + 1 < count; ++i) {
            if (pairs[i].rank < pairs[best].rank) best = i;
        }
        if (pairs[best].rank == MergeTable::no_rank) break;
        symbols[best] = pairs[best].id;
        std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
        if (best + 2 < count) std::copy(&pairs[best + 1], &pairs[count - 1], &pairs[best]);
        --count;
        if (best > 0) pairs[best - 1] = merges.find(symbols[best - 1], symbols[best]);
        if (best + 1 < count) pairs[best] = merges.find(symbols[best], symbols[best + 1]);
    }
    return count;
}

/// Merges many tokens: a doubly linked list of those that are left, and a queue of (rank, position) that may hold
/// pairs which exist no longer.
class MergeQueue {
public:
    MergeQueue(int* symbols, std::size_t count, const MergeTable& merges)
        : symbols_(symbols), merges_(merges), previous_(count), next_(count) {
        for (std::uint32_t i = 0; i < count; ++i) {
            previous_[i] = i - 1;  // the first one's wraps to `none`
            next_[i] = i + 1 < count ? i + 1 : none;
        }
        std::vector<std::uint64_t> pairs;
        for (std::uint32_t i = 0; i + 1 < count; ++i) {
            if (rank_at(i) != MergeTable::no_rank) pairs.push_back(entry(i));
        }
        queue_ = Queue(std::greater<>(), std::move(pairs));
    }

    std::size_t run() {
        while (!queue_.empty()) {
            const auto position = static_cast<std::uint32_t>(queue_.top());
            const auto rank = static_cast<std::uint32_t>(queue_.top() >> 32);
            queue_.pop();
            // A rank belongs to one pair, so an entry is stale exactly when the rank there is another one by now.
            if (symbols_[position] != gone && rank_at(position) == rank) merge(position);
        }
        return compact();
    }

private:
    using Queue = std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>>;
    static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();
    static constexpr int gone = -1;

    std::uint32_t rank_at(std::uint32_t position) const {
        const std::uint32_t right = next_[position];
        return right == none ? MergeTable::no_rank : merges_.find(symbols_[position], symbols_[right]).rank;
    }

    /// Rank above position: the queue's order is the merging order.
    std::uint64_t entry(std::uint32_t position) const { return std::uint64_t{rank_at(position)} << 32 | position; }

    void push(std::uint32_t position) {
        if (rank_at(position) != MergeTable::no_rank) queue_.push(entry(position));
    }

    void merge(std::uint32_t position) {
        const std::uint32_t right = next_[position];
        symbols_[position] = merges_.find(symbols_[position], symbols_[right]).id;
        symbols_[right] = gone;
        next_[position] = next_[right];
        if (next_[right] != none) previous_[next_[right]] = position;
        push(position);
        if (previous_[position] != none) push(previous_[position]);
    }

    std::size_t compact() {
        int* end = std::remove(symbols_, symbols_ + next_.size(), gone);
        return static_cast<std::size_t>(end - symbols_);
    }

    int* symbols_;
    const MergeTable& merges_;
    std::vector<std::uint32_t> previous_;
    std::vector<std::uint32_t> next_;
    Queue queue_;
};

}  // namespace

void merge_symbols(std::vector<int>& ids, std::size_t begin, const MergeTable& merges) {
    const std::size_t count = ids.size() - begin;
    int* symbols = ids.data() + begin;
    const std::size_t left =
        count <= max_scanned ? merge_by_scan(symbols, count, merges) : MergeQueue(symbols, count, merges).run();
    ids.resize(begin + left);
}

}  // namespace mha2mla::tokenizer
