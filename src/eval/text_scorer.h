#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "eval/prefix_tree.h"
#include "runtime/decoder.h"

namespace mha2mla::eval {

/// Log-likelihoods of the ends of texts, many at once. What texts begin with is computed once and forked in the cache,
/// from one call to the next, too.
class TextScorer {
public:
    /// Decoder and pool must outlive the scorer.
    TextScorer(runtime::Decoder& decoder, core::ThreadPool& pool) : decoder_(decoder), pool_(pool) {}

    /// Pages of the cache that a call with these texts takes at most; what is kept of the call before comes on top, no
    /// more than a sequence of the longest text.
    static std::int64_t pages(std::span<const ScoredText> texts);

    /// For each text the sum of log p of its tokens from `scored` on, each given all before it (natural logarithm).
    std::vector<double> score(std::span<const ScoredText> texts);

private:
    class Run;
    /// A text's beginning in the cache.
    struct Trunk {
        std::vector<int> tokens;
        runtime::Sequence sequence;
    };

    runtime::Decoder& decoder_;
    core::ThreadPool& pool_;
    std::optional<Trunk> trunk_;  // what the texts of the last call began with
};

}  // namespace mha2mla::eval
