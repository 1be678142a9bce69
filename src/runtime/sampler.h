#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/random.h"

namespace mha2mla::runtime {

/// Defaults decode greedily.
struct SamplingOptions {
    double temperature = 0;         ///< 0: greedy
    int top_k = 0;                  ///< 0: off
    double top_p = 1;               ///< 1: off
    double min_p = 0;               ///< 0: off
    double repetition_penalty = 1;  ///< 1: off; over the last `repetition_window` tokens
    int repetition_window = 64;
    std::uint64_t seed = 0;
};

/// Picks the next token. Order: repetition penalty, top-k, top-p, min-p, temperature. Same seed, same tokens.
class Sampler {
public:
    /// Throws Error on an option out of range.
    explicit Sampler(const SamplingOptions& options);
    /// Tokens that are `excluded` are not chosen, unless there are no others.
    int sample(std::span<const float> logits, std::span<const int> history, std::span<const int> excluded = {});

private:
    void exclude(std::span<const int> tokens);
    void penalize_repetition(std::span<const int> history);
    void keep_top_k();
    void keep_top_p();
    void keep_min_p();
    int draw();
    double probability(int token) const;

    SamplingOptions options_;
    core::Random random_;
    std::vector<float> scores_;    // logits after the penalty
    std::vector<int> candidates_;  // tokens that are left, ascending
    double max_ = 0;               // of the scores
};

}  // namespace mha2mla::runtime
