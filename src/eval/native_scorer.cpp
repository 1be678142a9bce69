#include "eval/native_scorer.h"

#include "eval/log_sum_exp.h"

namespace mha2mla::eval {
namespace {

/// -log p of each token, which the row of logits [vocab_size] at its place predicts.
void score_rows(std::span<const float> logits, std::span<const int> tokens, std::span<double> scores,
                core::ThreadPool& pool) {
    const std::size_t vocab = logits.size() / tokens.size();
    log_sum_exp(logits, scores, pool);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        scores[i] -= double{logits[i * vocab + static_cast<std::size_t>(tokens[i])]};
    }
}

}  // namespace

WindowScorer native_scorer(runtime::Decoder& decoder, core::ThreadPool& pool) {
    return [&](std::span<const int> tokens, std::size_t first) {
        const auto vocab = static_cast<std::size_t>(decoder.config().vocab_size);
        std::vector<double> scores(tokens.size() - first);
        decoder.check(tokens);  // the last one is only predicted, never read
        auto sequence = decoder.new_sequence();
        if (first > 1) decoder.forward(sequence, tokens.first(first - 1));
        decoder.forward_all(
            sequence, tokens.subspan(first - 1, scores.size()), [&](std::int64_t index, std::span<const float> logits) {
                const auto at = static_cast<std::size_t>(index), rows = logits.size() / vocab;
                score_rows(logits, tokens.subspan(first + at, rows), std::span(scores).subspan(at, rows), pool);
            });
        return scores;
    };
}

}  // namespace mha2mla::eval
