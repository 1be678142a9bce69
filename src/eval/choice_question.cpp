#include "eval/choice_question.h"

#include <algorithm>

#include "core/error.h"

namespace mha2mla::eval {
namespace {

std::size_t likeliest(const std::vector<double>& scores) {
    return static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

}  // namespace

ChoiceVerdict judge(const ChoiceQuestion& question, const std::vector<double>& log_likelihoods) {
    core::invariant(log_likelihoods.size() == question.choices.size(), "each choice has a score");
    std::vector<double> by_character;
    for (std::size_t i = 0; i < log_likelihoods.size(); ++i) {
        const auto characters = std::max<std::size_t>(question.choices[i].characters, 1);
        by_character.push_back(log_likelihoods[i] / static_cast<double>(characters));
    }
    return {.right = likeliest(log_likelihoods) == question.answer,
            .right_norm = likeliest(by_character) == question.answer};
}

}  // namespace mha2mla::eval
