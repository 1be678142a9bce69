#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "core/progress.h"
#include "data/windows.h"

namespace mha2mla::eval {

/// -log p of tokens[first], tokens[first + 1], ..., each given all before it (natural logarithm); first is at least 1.
/// The engine behind it is the caller's choice: the native decoder (native_scorer) or the workshop's module.
using WindowScorer = std::function<std::vector<double>(std::span<const int> tokens, std::size_t first)>;

struct PerplexityOptions {
    int first = 0;    ///< index of the first window
    int windows = 0;  ///< how many; 0: all that follow
    int scored = 0;   ///< how many of a window's last tokens count, the others are context; 0: all but the first one.
                      ///< Where windows overlap, the first of the text counts all but its first token.
};

struct PerplexityResult {
    double perplexity = 0;      ///< exp of the mean of -log p over all tokens that count
    double standard_error = 0;  ///< of the perplexity, as if tokens were independent (as llama-perplexity tells it)
    std::int64_t tokens = 0;    ///< that count
    double seconds = 0;
    std::vector<double> window_nll;  ///< mean -log p of each window
};

/// How many windows there are to read from `first` on: `windows`, or all that follow where it is 0. Throws Error when
/// the text has fewer.
int windows_to_read(const data::TokenWindows& text, int first, int windows);

/// Throws Error when the text has fewer windows than asked for.
PerplexityResult perplexity(const data::TokenWindows& text, const PerplexityOptions& options, const WindowScorer& score,
                            core::Progress& progress, const std::stop_token& stop);

}  // namespace mha2mla::eval
