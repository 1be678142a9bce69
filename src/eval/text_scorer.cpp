#include "eval/text_scorer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cache/page_format.h"
#include "core/error.h"
#include "eval/log_sum_exp.h"

namespace mha2mla::eval {
namespace {

constexpr std::size_t least_shared = 16;  // fewer tokens are computed again rather than in a pass of their own
constexpr auto page_tokens = static_cast<std::size_t>(cache::page_tokens);

/// Pages that a node's tokens take: a page that its parent left open is copied.
std::int64_t pages_of(const PrefixNode& node) {
    const std::size_t end = node.depth + node.tokens.size();
    return static_cast<std::int64_t>((end + page_tokens - 1) / page_tokens - node.depth / page_tokens);
}

}  // namespace

/// One call: the nodes of the tree, each taken in once its parent is.
class TextScorer::Run {
public:
    Run(TextScorer& scorer, std::span<const ScoredText> texts)
        : scorer_(scorer),
          texts_(texts),
          nodes_(prefix_tree(texts, least_shared)),
          branches_(nodes_.size()),
          scores_(texts.size()) {
        for (std::size_t i = 0; i < nodes_.size(); ++i) {
            if (nodes_[i].parent >= 0) ++branches_[static_cast<std::size_t>(nodes_[i].parent)].waiting_children;
        }
    }

    std::vector<double> scores() {
        grow_from_trunk();
        scorer_.trunk_.reset();
        while (gather()) {
            take_in(scorer_.decoder_.forward(feeds_));
            for (const Part& part : parts_) close(part.node);
        }
        return std::move(scores_);
    }

private:
    struct Branch {
        std::optional<runtime::Sequence> sequence = {};
        std::size_t taken_in = 0;  // tokens of its node
        bool done = false;         // all of them
        int waiting_children = 0;  // that are not forked yet
    };
    /// Tokens of a node that a pass takes in.
    struct Part {
        std::size_t node, first, count, logits;
    };

    bool one_root() const {
        return std::ranges::count_if(nodes_, [](const PrefixNode& node) { return node.parent < 0; }) == 1;
    }
    bool may_run(std::size_t node) const {
        const int parent = nodes_[node].parent;
        return !branches_[node].done && (parent < 0 || branches_[static_cast<std::size_t>(parent)].done);
    }
    void grow_from_trunk();
    void close(std::size_t node);
    void start(std::size_t node);
    void add_part(std::size_t node, std::size_t rows_left);
    bool gather();
    void take_in(std::span<const float> logits);
    void score_row(const PrefixNode& node, std::size_t token, std::span<const float> logits, double log_sum);

    TextScorer& scorer_;
    std::span<const ScoredText> texts_;
    std::vector<PrefixNode> nodes_;
    std::vector<Branch> branches_;
    std::vector<double> scores_;
    std::vector<Part> parts_;           // of the pass
    std::vector<runtime::Feed> feeds_;  // of the pass
    std::vector<double> log_sums_;
};

/// The only root begins with the whole pages that the call before left and that none of its scored tokens need.
void TextScorer::Run::grow_from_trunk() {
    if (!scorer_.trunk_ || !one_root()) return;
    const PrefixNode& root = nodes_.front();
    const std::size_t most = root.tokens.size() - std::max<std::size_t>(root.logits, 1);
    std::size_t shared = std::min(shared_tokens(root.tokens, scorer_.trunk_->tokens), most);
    shared -= shared % page_tokens;
    if (shared == 0) return;
    branches_.front().sequence = std::move(scorer_.trunk_->sequence);
    branches_.front().sequence->truncate(static_cast<int>(shared));
    branches_.front().taken_in = shared;
}

/// Behind a pass: a node that is done lets its children begin, and its pages go where it has none.
void TextScorer::Run::close(std::size_t node) {
    Branch& branch = branches_[node];
    branch.done = branch.taken_in == nodes_[node].tokens.size();
    if (!branch.done) return;
    if (nodes_[node].parent < 0 && branch.taken_in >= page_tokens && one_root()) {
        scorer_.trunk_.emplace(Trunk{nodes_[node].tokens, scorer_.decoder_.fork(*branch.sequence)});
    }
    if (branch.waiting_children == 0) branch.sequence.reset();
}

/// Gives a node, whose parent is done, its sequence.
void TextScorer::Run::start(std::size_t node) {
    if (nodes_[node].parent < 0) {
        branches_[node].sequence = scorer_.decoder_.new_sequence();
        return;
    }
    Branch& parent = branches_[static_cast<std::size_t>(nodes_[node].parent)];
    branches_[node].sequence = scorer_.decoder_.fork(*parent.sequence);
    if (--parent.waiting_children == 0) parent.sequence.reset();
}

void TextScorer::Run::add_part(std::size_t node, std::size_t rows_left) {
    Branch& branch = branches_[node];
    const auto& tokens = nodes_[node].tokens;
    const std::size_t first = branch.taken_in;
    const auto pass = static_cast<std::size_t>(scorer_.decoder_.pass_tokens(branch.sequence->tokens()));
    const std::size_t count = std::min({tokens.size() - first, rows_left, pass});
    const std::size_t wanted_from = std::max(tokens.size() - nodes_[node].logits, first);
    const std::size_t logits = first + count > wanted_from ? first + count - wanted_from : 0;
    parts_.push_back({.node = node, .first = first, .count = count, .logits = logits});
    feeds_.push_back({.sequence = &*branch.sequence,
                      .tokens = std::span(tokens).subspan(first, count),
                      .logits = static_cast<std::int64_t>(logits)});
    branch.taken_in += count;
}

/// Fills a pass with what can be computed now; false where all is done.
bool TextScorer::Run::gather() {
    parts_.clear();
    feeds_.clear();
    std::size_t rows = 0;
    for (std::size_t node = 0; node < nodes_.size() && rows < runtime::Decoder::max_batch_tokens; ++node) {
        if (!may_run(node)) continue;
        if (!branches_[node].sequence) start(node);
        add_part(node, runtime::Decoder::max_batch_tokens - rows);
        rows += parts_.back().count;
    }
    return !parts_.empty();
}

void TextScorer::Run::take_in(std::span<const float> logits) {
    std::size_t rows = 0;
    for (const Part& part : parts_) rows += part.logits;
    log_sums_.resize(rows);
    log_sum_exp(logits, log_sums_, scorer_.pool_);
    const std::size_t vocab = rows == 0 ? 0 : logits.size() / rows;
    std::size_t row = 0;
    for (const Part& part : parts_) {
        for (std::size_t i = part.count - part.logits; i < part.count; ++i, ++row) {
            score_row(nodes_[part.node], part.first + i, logits.subspan(row * vocab, vocab), log_sums_[row]);
        }
    }
}

/// The logits behind a token of a node are about the next token of every text that goes through it.
void TextScorer::Run::score_row(const PrefixNode& node, std::size_t token, std::span<const float> logits,
                                double log_sum) {
    const std::size_t next = node.depth + token + 1;
    for (const std::size_t text : node.texts) {
        if (next < texts_[text].scored) continue;
        scores_[text] += double{logits[static_cast<std::size_t>(texts_[text].tokens[next])]} - log_sum;
    }
}

std::int64_t TextScorer::pages(std::span<const ScoredText> texts) {
    std::int64_t pages = 0;
    for (const PrefixNode& node : prefix_tree(texts, least_shared)) pages += pages_of(node);
    return pages;
}

std::vector<double> TextScorer::score(std::span<const ScoredText> texts) {
    for (const ScoredText& text : texts) decoder_.check(text.tokens);  // the last one is only predicted, never read
    auto scores = Run(*this, texts).scores();
    if (std::ranges::all_of(scores, [](double score) { return std::isfinite(score); })) return scores;
    throw core::Error({.what = "the model's logits are not numbers",
                       .remedy = "check its weights with mha2mla inspect, and try --weights f32"});
}

}  // namespace mha2mla::eval
