#pragma once

#include <cstdint>
#include <stop_token>

#include "core/progress.h"
#include "core/thread_pool.h"
#include "data/windows.h"
#include "runtime/decoder.h"

namespace mha2mla::eval {

/// A model and the one that it was made of. Both have the same vocabulary, else fidelity throws Error.
struct ModelPair {
    runtime::Decoder& source;
    runtime::Decoder& model;
    core::ThreadPool& pool;
};

/// Windows of a text: `windows` of them from `first` on; 0: all that follow.
struct WindowRange {
    int first = 0;
    int windows = 0;
};

/// How far the model's next-token distributions are from the source's on the same text.
struct FidelityResult {
    std::int64_t tokens = 0;  ///< distributions compared
    double mean_kl = 0;       ///< of KL(source || model), natural logarithm
    double kl_99 = 0;         ///< 99th percentile of the tokens' KL, linear between neighbours
    double same_top = 0;      ///< share of the tokens behind which both find the same token the likeliest
    double perplexity = 0;    ///< of the model on the same tokens
    double source_perplexity = 0;
    double seconds = 0;
};

/// Both read each window as a text of its own and are compared behind every token but its last one.
FidelityResult fidelity(const data::TokenWindows& text, const WindowRange& range, const ModelPair& pair,
                        core::Progress& progress, const std::stop_token& stop);

}  // namespace mha2mla::eval
