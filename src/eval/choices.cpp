#include "eval/choices.h"

#include <algorithm>
#include <numeric>

#include "core/progress.h"

namespace mha2mla::eval {
namespace {

std::vector<ScoredText> texts_of(std::span<const TokenQuestion> questions) {
    std::vector<ScoredText> texts;
    for (const TokenQuestion& question : questions) {
        for (const TokenChoice& choice : question) {
            texts.push_back({.tokens = choice.context, .scored = choice.context.size()});
            texts.back().tokens.insert(texts.back().tokens.end(), choice.continuation.begin(),
                                       choice.continuation.end());
        }
    }
    return texts;
}

/// How many of the questions, from the first on, one batch takes: halved until the pages last.
std::size_t batch_size(std::span<const TokenQuestion> questions, const ScoreOptions& options) {
    std::size_t count = std::min(questions.size(), static_cast<std::size_t>(options.at_once));
    while (count > 1 && TextScorer::pages(texts_of(questions.first(count))) > options.pages) count = (count + 1) / 2;
    return count;
}

}  // namespace

std::size_t longest_text(const TokenQuestion& question) {
    std::size_t longest = 0;
    for (const auto& choice : question) longest = std::max(longest, choice.context.size() + choice.continuation.size());
    return longest;
}

std::int64_t pages_for(std::span<const TokenQuestion> questions, int at_once) {
    std::vector<std::int64_t> pages;
    for (const auto& question : questions) pages.push_back(TextScorer::pages(texts_of({&question, 1})));
    std::ranges::sort(pages, std::greater());
    pages.resize(std::min(pages.size(), static_cast<std::size_t>(at_once)));
    return std::accumulate(pages.begin(), pages.end(), std::int64_t{0});
}

void score_questions(std::span<const TokenQuestion> questions, const ScoreOptions& options, TextScorer& scorer,
                     const std::function<void(std::size_t question, std::vector<double> log_likelihoods)>& on_scored,
                     const std::stop_token& stop) {
    for (std::size_t first = 0; first < questions.size();) {
        core::throw_if_stopped(stop);
        const auto batch = questions.subspan(first, batch_size(questions.subspan(first), options));
        const std::vector<double> scores = scorer.score(texts_of(batch));
        auto next = scores.begin();
        for (const TokenQuestion& question : batch) {
            on_scored(first++, {next, next + std::ssize(question)});
            next += std::ssize(question);
        }
    }
}

}  // namespace mha2mla::eval
