#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "eval/choice_question.h"
#include "eval/text_scorer.h"

namespace mha2mla::eval {

/// A question in tokens: its choices.
using TokenQuestion = std::vector<TokenChoice>;

/// Tokens of a question's longest choice.
std::size_t longest_text(const TokenQuestion& question);

/// Pages of the cache that `at_once` of the questions take at most at a time.
std::int64_t pages_for(std::span<const TokenQuestion> questions, int at_once);

struct ScoreOptions {
    int at_once = 8;         ///< questions in a batch
    std::int64_t pages = 0;  ///< of the cache; the batch is smaller where they do not last
};

/// Log-likelihoods of every question's choices, handed over question by question, in order. Throws Cancelled at a stop
/// request.
void score_questions(std::span<const TokenQuestion> questions, const ScoreOptions& options, TextScorer& scorer,
                     const std::function<void(std::size_t question, std::vector<double> log_likelihoods)>& on_scored,
                     const std::stop_token& stop);

}  // namespace mha2mla::eval
