#include "eval/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <string>

#include "core/error.h"

namespace mha2mla::eval {
namespace {

/// Sums over tokens.
struct Tally {
    void add(const std::vector<double>& nll) {
        for (const double value : nll) {
            sum += value;
            squares += value * value;
        }
        count += static_cast<double>(nll.size());
    }
    double perplexity() const { return std::exp(sum / count); }
    /// By the delta method: d exp(m) = exp(m) dm.
    double standard_error() const {
        const double mean = sum / count, variance = std::max(squares / count - mean * mean, 0.0);
        return count < 2 ? 0 : perplexity() * std::sqrt(variance / (count - 1));
    }

    double sum = 0, squares = 0, count = 0;
};

double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Where in a window the tokens begin that count.
std::size_t first_scored(const data::TokenWindows& text, const PerplexityOptions& options, int window) {
    const bool begins_text = window == 0 && text.stride() < text.window();
    if (options.scored == 0 || begins_text) return 1;
    core::invariant(options.scored < text.window(), "the first token of a window never counts");
    return static_cast<std::size_t>(text.window() - options.scored);
}

}  // namespace

int windows_to_read(const data::TokenWindows& text, int first, int windows) {
    const int available = text.count() - first;
    const int asked = windows == 0 ? std::max(available, 1) : windows;
    if (first < 0 || asked < 1 || asked > available) {
        throw core::Error(
            {.what = "the text has too few windows",
             .expected = "windows " + std::to_string(first) + " to " + std::to_string(std::int64_t{first} + asked - 1),
             .got = std::to_string(text.count()) + " windows of " + std::to_string(text.window()) + " tokens",
             .remedy = "pass a longer text, fewer --windows or a smaller --window"});
    }
    return asked;
}

PerplexityResult perplexity(const data::TokenWindows& text, const PerplexityOptions& options, const WindowScorer& score,
                            core::Progress& progress, const std::stop_token& stop) {
    const int windows = windows_to_read(text, options.first, options.windows);
    const auto start = std::chrono::steady_clock::now();
    PerplexityResult result;
    Tally tally;
    progress.begin("perplexity", windows);
    for (int window = options.first; window < options.first + windows; ++window) {
        core::throw_if_stopped(stop);
        const std::vector<double> nll = score(text[window], first_scored(text, options, window));
        core::invariant(!nll.empty(), "a window holds at least two tokens");
        tally.add(nll);
        result.tokens += static_cast<std::int64_t>(nll.size());
        result.window_nll.push_back(mean(nll));
        progress.update(window - options.first + 1, "perplexity " + std::to_string(tally.perplexity()));
    }
    progress.end();
    result.perplexity = tally.perplexity();
    result.standard_error = tally.standard_error();
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

}  // namespace mha2mla::eval
