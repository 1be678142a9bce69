#pragma once

#include <string>
#include <vector>

namespace mha2mla::eval {

/// A way to answer: how likely is `continuation` behind `context`?
struct Choice {
    std::string context;
    std::string continuation;
    std::size_t characters = 0;  ///< code points of the answer alone, by which accuracy_norm divides
};

/// A multiple-choice question as log-likelihood requests, in the manner of lm-evaluation-harness.
struct ChoiceQuestion {
    std::string id = {};       ///< number of its row, from 0
    std::string where = {};    ///< "piqa.jsonl, line 3"
    std::string subject = {};  ///< of benchmarks that have several: worked examples are of the same
    std::vector<Choice> choices = {};
    std::size_t answer = 0;  ///< index of the right choice
};

/// A choice in tokens.
struct TokenChoice {
    std::vector<int> context;       ///< at least one
    std::vector<int> continuation;  ///< at least one
};

/// Whether a model answers a question.
struct ChoiceVerdict {
    bool right = false;       ///< the right choice is the likeliest (the first of equals)
    bool right_norm = false;  ///< the same after division by the answers' characters
};

/// Judges the log-likelihoods of the continuations, one a choice.
ChoiceVerdict judge(const ChoiceQuestion& question, const std::vector<double>& log_likelihoods);

}  // namespace mha2mla::eval
