#include "eval/sequence_matcher.h"

#include <map>
#include <vector>

namespace mha2mla::eval {
namespace {

/// a[a_begin, a_end) against b[b_begin, b_end)
struct Part {
    std::size_t a_begin, a_end, b_begin, b_end;
};

struct Block {
    std::size_t a, b, size;
};

class Matcher {
public:
    Matcher(std::u32string_view a, std::u32string_view b) : a_(a), b_(b), ending_(b.size() + 1), next_(b.size() + 1) {
        for (std::size_t j = 0; j < b.size(); ++j) places_[b[j]].push_back(j);
        constexpr std::size_t shortest_with_popular = 200;
        if (b.size() < shortest_with_popular) return;
        const std::size_t most = b.size() / 100 + 1;
        std::erase_if(places_, [&](const auto& entry) { return entry.second.size() > most; });
    }

    std::size_t matching() {
        std::size_t total = 0;
        std::vector<Part> parts{{0, a_.size(), 0, b_.size()}};
        while (!parts.empty()) {
            const Part part = parts.back();
            parts.pop_back();
            const Block block = extended(longest(part), part);
            if (block.size == 0) continue;
            total += block.size;
            parts.push_back({part.a_begin, block.a, part.b_begin, block.b});
            parts.push_back({block.a + block.size, part.a_end, block.b + block.size, part.b_end});
        }
        return total;
    }

private:
    /// The first of the longest blocks whose characters are all in places_.
    Block longest(const Part& part) {
        Block best{part.a_begin, part.b_begin, 0};
        const std::vector<std::size_t>* before = nullptr;  // where a block may have ended at a[i - 1]
        for (std::size_t i = part.a_begin; i < part.a_end; ++i) {
            const auto found = places_.find(a_[i]);
            const auto* here = found == places_.end() ? nullptr : &found->second;
            if (here != nullptr) extend_blocks(*here, i, part, best);
            if (before != nullptr) clear(*before);
            ending_.swap(next_);
            before = here;
        }
        if (before != nullptr) clear(*before);
        return best;
    }

    void extend_blocks(const std::vector<std::size_t>& places, std::size_t i, const Part& part, Block& best) {
        for (const std::size_t j : places) {
            if (j < part.b_begin) continue;
            if (j >= part.b_end) break;
            const std::size_t size = ending_[j] + 1;
            next_[j + 1] = size;
            if (size > best.size) best = {i + 1 - size, j + 1 - size, size};
        }
    }

    void clear(const std::vector<std::size_t>& places) {
        for (const std::size_t j : places) ending_[j + 1] = 0;
    }

    /// Frequent characters may lie beside a block, if not begin it.
    Block extended(Block block, const Part& part) const {
        while (block.a > part.a_begin && block.b > part.b_begin && a_[block.a - 1] == b_[block.b - 1]) {
            --block.a;
            --block.b;
            ++block.size;
        }
        while (block.a + block.size < part.a_end && block.b + block.size < part.b_end &&
               a_[block.a + block.size] == b_[block.b + block.size]) {
            ++block.size;
        }
        return block;
    }

    std::u32string_view a_, b_;
    std::map<char32_t, std::vector<std::size_t>> places_;  // in b, ascending
    // [j + 1]: length of the block that ends at b[j] and at a's previous, or this, character. Zeros between two rows.
    std::vector<std::size_t> ending_, next_;
};

}  // namespace

double sequence_ratio(std::u32string_view a, std::u32string_view b) {
    if (a.empty() && b.empty()) return 1;
    return 2.0 * static_cast<double>(Matcher(a, b).matching()) / static_cast<double>(a.size() + b.size());
}

}  // namespace mha2mla::eval
