#include "eval/perplexity.h"

#include <chrono>
#include <cmath>
#include <numeric>
#include <string>

#include "core/error.h"

namespace mha2mla::eval {
namespace {

double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

int windows_to_score(const data::TokenWindows& text, const PerplexityOptions& options) {
    const int available = text.count() - options.first;
    const int asked = options.windows == 0 ? std::max(available, 1) : options.windows;
    if (options.first < 0 || asked < 1 || asked > available) {
        throw core::Error(
            {.what = "the text has too few windows",
             .expected = "windows " + std::to_string(options.first) + " to " +
                         std::to_string(std::int64_t{options.first} + asked - 1),
             .got = std::to_string(text.count()) + " windows of " + std::to_string(text.window()) + " tokens",
             .remedy = "pass a longer text, fewer --windows or a smaller --window"});
    }
    return asked;
}

}  // namespace

PerplexityResult perplexity(const data::TokenWindows& text, const PerplexityOptions& options, const WindowScorer& score,
                            core::Progress& progress, const std::stop_token& stop) {
    const int windows = windows_to_score(text, options);
    const auto start = std::chrono::steady_clock::now();
    PerplexityResult result;
    progress.begin("perplexity", windows);
    for (int window = 0; window < windows; ++window) {
        core::throw_if_stopped(stop);
        const std::vector<double> nll = score(text[options.first + window]);
        core::invariant(!nll.empty(), "a window holds at least two tokens");
        result.tokens += static_cast<std::int64_t>(nll.size());
        result.window_nll.push_back(mean(nll));
        result.perplexity = std::exp(mean(result.window_nll));
        progress.update(window + 1, "perplexity " + std::to_string(result.perplexity));
    }
    progress.end();
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

}  // namespace mha2mla::eval
