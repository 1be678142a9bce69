#include "data/mixture.h"

#include <algorithm>
#include <fmt/format.h>

#include "core/error.h"
#include "core/random.h"

namespace mha2mla::data {
namespace {

/// How many whole windows a text holds.
int capacity(const TokenStream& text, const MixOptions& options) {
    const auto whole = text.tokens.size() / static_cast<std::size_t>(options.window);
    return static_cast<int>(std::min(whole, static_cast<std::size_t>(options.windows)));
}

void check(const std::vector<TokenStream>& texts, const MixOptions& options) {
    core::invariant(options.window > 0, "windows hold tokens");
    if (std::ssize(texts) > options.windows) {
        throw core::Error({.what = "there are more texts than windows",
                           .expected = fmt::format("at least {} windows", texts.size()),
                           .got = fmt::to_string(options.windows),
                           .where = "--calibration-windows"});
    }
    for (const auto& text : texts) {
        if (capacity(text, options) > 0) continue;
        throw core::Error({.what = "the calibration text is too short",
                           .expected = fmt::format("at least {} tokens", options.window),
                           .got = fmt::to_string(text.tokens.size()),
                           .where = text.name});
    }
}

/// `count` windows of one text.
std::vector<std::vector<int>> spread(const TokenStream& text, int count, int window, core::Random& random) {
    const auto parts = static_cast<std::size_t>(count);
    const auto length = static_cast<std::size_t>(window);
    std::vector<std::vector<int>> windows;
    for (std::size_t part = 0; part < parts; ++part) {
        const std::size_t begin = part * text.tokens.size() / parts;
        const std::size_t end = (part + 1) * text.tokens.size() / parts;
        const auto first =
            text.tokens.begin() + static_cast<std::ptrdiff_t>(begin + random.below(end - begin - length + 1));
        windows.emplace_back(first, first + window);
    }
    return windows;
}

/// Windows of each text: one more for each in turn until none is left to give or to take.
std::vector<int> shares(const std::vector<TokenStream>& texts, const MixOptions& options) {
    std::vector<int> share(texts.size());
    int left = options.windows;
    for (int round = 0; round < options.windows; ++round) {
        for (std::size_t i = 0; i < texts.size(); ++i) {
            if (left == 0 || share[i] == capacity(texts[i], options)) continue;
            ++share[i];
            --left;
        }
    }
    return share;
}

}  // namespace

std::vector<std::vector<int>> mix_windows(const std::vector<TokenStream>& texts, const MixOptions& options) {
    check(texts, options);
    const auto share = shares(texts, options);
    core::Random random(options.seed);
    std::vector<std::vector<std::vector<int>>> windows;
    for (std::size_t i = 0; i < texts.size(); ++i) {
        windows.push_back(spread(texts[i], share[i], options.window, random));
    }
    std::vector<std::vector<int>> mixed;
    for (std::size_t round = 0; round < static_cast<std::size_t>(options.windows); ++round) {
        for (auto& of_text : windows) {
            if (round < of_text.size()) mixed.push_back(std::move(of_text[round]));
        }
    }
    return mixed;
}

}  // namespace mha2mla::data
