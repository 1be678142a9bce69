#include "eval/fidelity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "eval/log_sum_exp.h"
#include "eval/perplexity.h"

namespace mha2mla::eval {
namespace {

constexpr std::size_t most_rows = 128;  // logits of so many tokens of both models are in memory at a time

/// What the comparison of one token's distributions gives.
struct TokenFidelity {
    double kl = 0;
    double nll = 0;
    double source_nll = 0;
    bool same_top = false;
};

std::size_t likeliest(std::span<const float> logits) {
    return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TokenFidelity compare(std::span<const float> source, std::span<const float> model, int next) {
    const double source_sum = log_sum_exp(source), model_sum = log_sum_exp(model);
    double kl = 0;
    for (std::size_t i = 0; i < source.size(); ++i) {
        const double log_p = double{source[i]} - source_sum;
        kl += std::exp(log_p) * (log_p - (double{model[i]} - model_sum));
    }
    const auto token = static_cast<std::size_t>(next);
    return {.kl = std::max(kl, 0.0),  // rounding aside it is not negative
            .nll = model_sum - double{model[token]},
            .source_nll = source_sum - double{source[token]},
            .same_top = likeliest(source) == likeliest(model)};
}

/// Linear between the neighbours of rank share * (n - 1), as numpy's percentile.
double quantile(std::vector<double> values, double share) {
    std::ranges::sort(values);
    const double rank = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(rank), above = std::min(below + 1, values.size() - 1);
    return std::lerp(values[below], values[above], rank - static_cast<double>(below));
}

void add_window(std::span<const int> tokens, const ModelPair& pair, std::vector<TokenFidelity>& results) {
    pair.source.check(tokens);  // the last one is only predicted, never read
    auto source = pair.source.new_sequence(), model = pair.model.new_sequence();
    const auto read = tokens.first(tokens.size() - 1);
    for (std::size_t at = 0, count = 0; at < read.size(); at += count) {
        const auto pass = std::min(pair.source.pass_tokens(source.tokens()), pair.model.pass_tokens(model.tokens()));
        count = std::min({static_cast<std::size_t>(pass), most_rows, read.size() - at});
        const auto logits_of = [&](runtime::Decoder& decoder, runtime::Sequence& sequence) {
            const runtime::Feed feed{
                .sequence = &sequence, .tokens = read.subspan(at, count), .logits = static_cast<std::int64_t>(count)};
            return decoder.forward(std::span(&feed, 1));
        };
        const auto of_source = logits_of(pair.source, source), of_model = logits_of(pair.model, model);
        const std::size_t first = results.size(), vocab = of_source.size() / count;
        results.resize(first + count);
        pair.pool.parallel_for(static_cast<std::int64_t>(count), 1, [&](std::int64_t begin, std::int64_t end) {
            for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
                results[first + i] = compare(of_source.subspan(i * vocab, vocab), of_model.subspan(i * vocab, vocab),
                                             tokens[at + i + 1]);
            }
        });
    }
}

template <typename Value>
double mean(const std::vector<TokenFidelity>& tokens, const Value& value_of) {
    double sum = 0;
    for (const auto& token : tokens) sum += value_of(token);
    return sum / static_cast<double>(tokens.size());
}

FidelityResult summary(const std::vector<TokenFidelity>& tokens) {
    std::vector<double> kl;
    for (const auto& token : tokens) kl.push_back(token.kl);
    return {.tokens = std::ssize(tokens),
            .mean_kl = mean(tokens, [](const auto& token) { return token.kl; }),
            .kl_99 = quantile(std::move(kl), 0.99),
            .same_top = mean(tokens, [](const auto& token) { return token.same_top ? 1.0 : 0.0; }),
            .perplexity = std::exp(mean(tokens, [](const auto& token) { return token.nll; })),
            .source_perplexity = std::exp(mean(tokens, [](const auto& token) { return token.source_nll; }))};
}

void check_numbers(std::span<const TokenFidelity> tokens, int window) {
    const auto is_number = [](const TokenFidelity& token) { return std::isfinite(token.kl); };
    if (std::ranges::all_of(tokens, is_number)) return;
    throw core::Error({.what = "the logits of a model are not numbers, or a probability is zero",
                       .where = fmt::format("window {}", window),
                       .remedy = "check the weights of both models with mha2mla inspect, and try --weights f32"});
}

void check_vocabularies(const ModelPair& pair) {
    const auto source = pair.source.config().vocab_size, model = pair.model.config().vocab_size;
    if (source == model) return;
    throw core::Error({.what = "the two models have different vocabularies",
                       .expected = fmt::format("{} tokens", source),
                       .got = fmt::format("{} tokens", model),
                       .where = "--against",
                       .remedy = "pass the model that this one was converted from"});
}

}  // namespace

FidelityResult fidelity(const data::TokenWindows& text, const WindowRange& range, const ModelPair& pair,
                        core::Progress& progress, const std::stop_token& stop) {
    check_vocabularies(pair);
    const int windows = windows_to_read(text, range.first, range.windows);
    const auto start = std::chrono::steady_clock::now();
    std::vector<TokenFidelity> tokens;
    double sum_kl = 0;
    progress.begin("fidelity", windows);
    for (int window = 0; window < windows; ++window) {
        core::throw_if_stopped(stop);
        const std::size_t before = tokens.size();
        add_window(text[range.first + window], pair, tokens);
        const auto added = std::span(tokens).subspan(before);
        check_numbers(added, range.first + window);
        for (const TokenFidelity& token : added) sum_kl += token.kl;
        progress.update(window + 1, fmt::format("mean KL {:.4f}", sum_kl / static_cast<double>(tokens.size())));
    }
    progress.end();
    auto result = summary(tokens);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

}  // namespace mha2mla::eval
