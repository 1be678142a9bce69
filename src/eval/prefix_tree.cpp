#include "eval/prefix_tree.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace mha2mla::eval {
namespace {

std::span<const int> read_tokens(const ScoredText& text) {
    return std::span(text.tokens).first(text.tokens.size() - 1);
}

class Builder {
public:
    Builder(std::span<const ScoredText> texts, std::size_t least) : texts_(texts), least_(least), order_(texts.size()) {
        std::iota(order_.begin(), order_.end(), std::size_t{0});
        std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
            return std::ranges::lexicographical_compare(read(a), read(b));
        });
    }

    std::vector<PrefixNode> build() {
        add_children(order_, -1, 0);
        return std::move(nodes_);
    }

private:
    using Texts = std::span<const std::size_t>;  // neighbours in the sorted order

    std::span<const int> read(std::size_t text) const { return read_tokens(texts_[text]); }

    /// Tokens behind `depth` that all of the texts share: as they are sorted, those of the first and the last.
    std::size_t shared(Texts texts, std::size_t depth) const {
        return shared_tokens(read(texts.front()).subspan(depth), read(texts.back()).subspan(depth));
    }

    /// How many of the texts, from the first on, one node is for.
    std::size_t group(Texts texts, std::size_t depth) const {
        std::size_t count = 1;
        while (count < texts.size()) {
            const std::size_t common = shared(texts.first(count + 1), depth);
            const bool whole = common > 0 && common == read(texts.front()).size() - depth;  // the shortest comes first
            if (common < least_ && !whole) break;
            ++count;
        }
        return count;
    }

    void add_children(Texts texts, int parent, std::size_t depth) {
        while (!texts.empty() && read(texts.front()).size() == depth) texts = texts.subspan(1);  // they end here
        while (!texts.empty()) {
            const std::size_t count = group(texts, depth);
            add(texts.first(count), parent, depth);
            texts = texts.subspan(count);
        }
    }

    void add(Texts texts, int parent, std::size_t depth) {
        const std::size_t length = shared(texts, depth), end = depth + length;
        const auto tokens = read(texts.front()).subspan(depth, length);
        PrefixNode node{.parent = parent,
                        .depth = depth,
                        .tokens = {tokens.begin(), tokens.end()},
                        .texts = {texts.begin(), texts.end()}};
        for (const std::size_t text : texts) {
            const std::size_t first = std::max(texts_[text].scored - 1, depth);  // the token before predicts it
            if (first < end) node.logits = std::max(node.logits, end - first);
        }
        nodes_.push_back(std::move(node));
        add_children(texts, static_cast<int>(nodes_.size()) - 1, end);
    }

    std::span<const ScoredText> texts_;
    std::size_t least_;
    std::vector<std::size_t> order_;
    std::vector<PrefixNode> nodes_;
};

}  // namespace

std::size_t shared_tokens(std::span<const int> a, std::span<const int> b) {
    return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

std::vector<PrefixNode> prefix_tree(std::span<const ScoredText> texts, std::size_t least) {
    for (const auto& text : texts) {
        core::invariant(text.scored >= 1 && text.scored < text.tokens.size(), "a text scores tokens behind its first");
    }
    return Builder(texts, least).build();
}

}  // namespace mha2mla::eval
