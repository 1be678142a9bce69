#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "core/error.h"

namespace mha2mla::runtime {
namespace {

constexpr float excluded_score = -std::numeric_limits<float>::infinity();

void require(bool holds, const char* option, const char* expected, double got) {
    if (holds) return;
    throw core::Error({.what = "a sampling option is out of range",
                       .expected = expected,
                       .got = std::to_string(got),
                       .where = option});
}

void check(const SamplingOptions& options) {
    require(options.temperature >= 0 && std::isfinite(options.temperature), "--temperature", "0 or more",
            options.temperature);
    require(options.top_k >= 0, "--top-k", "0 (off) or more", options.top_k);
    require(options.top_p > 0 && options.top_p <= 1, "--top-p", "more than 0, at most 1", options.top_p);
    require(options.min_p >= 0 && options.min_p <= 1, "--min-p", "0 to 1", options.min_p);
    require(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty), "--repetition-penalty",
            "more than 0", options.repetition_penalty);
    require(options.repetition_window >= 0, "--repetition-window", "0 or more", options.repetition_window);
}

/// Better scores first; equal scores by token, so that the order is the same everywhere.
struct Better {
    const std::vector<float>& scores;
    bool operator()(int a, int b) const {
        const float score_a = scores[static_cast<std::size_t>(a)];
        const float score_b = scores[static_cast<std::size_t>(b)];
        return score_a != score_b ? score_a > score_b : a < b;
    }
};

}  // namespace

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) { check(options); }

int Sampler::sample(std::span<const float> logits, std::span<const int> history, std::span<const int> excluded) {
    scores_.assign(logits.begin(), logits.end());
    penalize_repetition(history);
    exclude(excluded);
    if (options_.temperature == 0) {
        return static_cast<int>(std::max_element(scores_.begin(), scores_.end()) - scores_.begin());
    }
    candidates_.resize(scores_.size());
    std::iota(candidates_.begin(), candidates_.end(), 0);
    max_ = *std::max_element(scores_.begin(), scores_.end());
    if (!excluded.empty())
        std::erase_if(candidates_,
                      [this](int token) { return scores_[static_cast<std::size_t>(token)] == excluded_score; });
    if (candidates_.empty()) return excluded.front();
    keep_top_k();
    keep_top_p();
    keep_min_p();
    return draw();
}

void Sampler::exclude(std::span<const int> tokens) {
    for (const int token : tokens) {
        const auto index = static_cast<std::size_t>(token);
        if (index < scores_.size()) scores_[index] = excluded_score;
    }
}

/// The penalty of CTRL (arXiv 1909.05858) section 4.1, once for each token of the window.
void Sampler::penalize_repetition(std::span<const int> history) {
    if (options_.repetition_penalty == 1) return;
    const auto window = std::min(history.size(), static_cast<std::size_t>(options_.repetition_window));
    candidates_.assign(history.end() - static_cast<std::ptrdiff_t>(window), history.end());
    std::sort(candidates_.begin(), candidates_.end());
    candidates_.erase(std::unique(candidates_.begin(), candidates_.end()), candidates_.end());
    const auto penalty = static_cast<float>(options_.repetition_penalty);
    for (const int token : candidates_) {
        float& score = scores_[static_cast<std::size_t>(token)];
        score = score > 0 ? score / penalty : score * penalty;
    }
}

void Sampler::keep_top_k() {
    const auto k = static_cast<std::size_t>(options_.top_k);
    if (k == 0 || k >= candidates_.size()) return;
    std::nth_element(candidates_.begin(), candidates_.begin() + options_.top_k, candidates_.end(), Better{scores_});
    candidates_.resize(k);
    std::sort(candidates_.begin(), candidates_.end());
}

/// Keeps the fewest best tokens that hold top_p of the probability (arXiv 1904.09751). A heap gives the best ones
/// without sorting the rest.
void Sampler::keep_top_p() {
    if (options_.top_p == 1) return;
    double total = 0;
    for (const int token : candidates_) total += probability(token);
    const auto worse = [this](int a, int b) { return Better{scores_}(b, a); };
    std::make_heap(candidates_.begin(), candidates_.end(), worse);
    auto kept = candidates_.end();
    for (double sum = 0; sum < options_.top_p * total && kept != candidates_.begin(); --kept) {
        std::pop_heap(candidates_.begin(), kept, worse);
        sum += probability(*(kept - 1));
    }
    candidates_.erase(candidates_.begin(), kept);
    std::sort(candidates_.begin(), candidates_.end());
}

/// Drops tokens with less than min_p of the best token's probability (arXiv 2407.01082).
void Sampler::keep_min_p() {
    if (options_.min_p == 0) return;
    std::erase_if(candidates_, [this](int token) { return probability(token) < options_.min_p; });
}

int Sampler::draw() {
    const auto weight = [this](int token) {
        return std::exp((double{scores_[static_cast<std::size_t>(token)]} - max_) / options_.temperature);
    };
    double total = 0;
    for (const int token : candidates_) total += weight(token);
    double left = random_.uniform() * total;
    for (const int token : candidates_) {
        left -= weight(token);
        if (left < 0) return token;
    }
    return candidates_.back();  // rounding used up the last part
}

/// Relative to the best token.
double Sampler::probability(int token) const {
    return std::exp(double{scores_[static_cast<std::size_t>(token)]} - max_);
}

}  // namespace mha2mla::runtime
