#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "core/progress.h"
#include "data/windows.h"

namespace mha2mla::eval {

/// -log p of each token of a window after the first (window - 1 numbers, natural logarithm). The engine behind it is
/// the caller's choice: the native decoder (native_scorer) or the workshop's module.
using WindowScorer = std::function<std::vector<double>(std::span<const int> tokens)>;

struct PerplexityOptions {
    int first = 0;    ///< index of the first window
    int windows = 0;  ///< how many; 0: all that follow
};

struct PerplexityResult {
    double perplexity = 0;    ///< exp of the mean over windows of the mean -log p in a window
    std::int64_t tokens = 0;  ///< tokens scored
    double seconds = 0;
    std::vector<double> window_nll;  ///< mean -log p of each window
};

/// Throws Error when the text has fewer windows than asked for.
PerplexityResult perplexity(const data::TokenWindows& text, const PerplexityOptions& options, const WindowScorer& score,
                            core::Progress& progress, const std::stop_token& stop);

}  // namespace mha2mla::eval
