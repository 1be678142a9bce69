#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "runtime/decoder.h"
#include "runtime/sampler.h"

namespace mha2mla::runtime {

struct GenerateOptions {
    SamplingOptions sampling = {};
    int max_tokens = 128;
    std::vector<int> stop_tokens = {};  ///< end of text; not part of the output
    int min_tokens = 0;                 ///< no stop token is chosen before so many are there

    /// What is not to be chosen behind so many tokens.
    std::span<const int> excluded(int generated_tokens) const {
        return std::span(stop_tokens).first(generated_tokens < min_tokens ? stop_tokens.size() : 0);
    }
};

enum class FinishReason { stop, length, context, cancelled };

struct GenerateStats {
    FinishReason finish = FinishReason::length;
    int prompt_tokens = 0;
    int generated_tokens = 0;
    double prefill_seconds = 0;
    int decode_steps = 0;  ///< forward passes of one token: the first comes of the prompt, the last is not read
    double decode_seconds = 0;
};

/// Continues `prompt` and hands over each token as it is chosen. A stop request ends it cleanly
/// (FinishReason::cancelled).
GenerateStats generate(Decoder& decoder, Sequence& sequence, std::span<const int> prompt,
                       const GenerateOptions& options, const std::function<void(int token)>& emit,
                       const std::stop_token& stop);

}  // namespace mha2mla::runtime
