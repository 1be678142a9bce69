#include "data/document_windows.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace mha2mla::data {
namespace {

std::size_t count_tokens(const std::vector<std::vector<int>>& windows) {
    return std::accumulate(windows.begin(), windows.end(), std::size_t{0},
                           [](std::size_t sum, const auto& window) { return sum + window.size(); });
}

}  // namespace

std::vector<std::vector<int>> document_windows(const std::vector<std::vector<int>>& documents, int window,
                                               int shortest) {
    core::invariant(window >= 1 && shortest >= 1, "windows have tokens");
    const auto width = static_cast<std::size_t>(window);
    std::vector<std::vector<int>> windows;
    for (const auto& document : documents) {
        for (std::size_t begin = 0; begin < document.size(); begin += width) {
            const std::size_t end = std::min(begin + width, document.size());
            if (end - begin < static_cast<std::size_t>(shortest)) break;
            windows.emplace_back(document.begin() + static_cast<std::ptrdiff_t>(begin),
                                 document.begin() + static_cast<std::ptrdiff_t>(end));
        }
    }
    return windows;
}

std::vector<std::vector<int>> mix_evenly(std::vector<std::vector<std::vector<int>>> texts, std::size_t tokens) {
    // The shortest first: what it does not have falls to the others.
    std::stable_sort(texts.begin(), texts.end(),
                     [](const auto& a, const auto& b) { return count_tokens(a) < count_tokens(b); });
    std::vector<std::vector<int>> chosen;
    std::size_t left = tokens;
    for (std::size_t t = 0; t < texts.size(); ++t) {
        auto& text = texts[t];
        const std::size_t total = count_tokens(text);
        const std::size_t wanted = std::min(total, left / (texts.size() - t));
        const std::size_t windows = total == 0 ? 0 : (text.size() * wanted + total - 1) / total;
        for (std::size_t i = 0; i < windows; ++i) chosen.push_back(std::move(text[i * text.size() / windows]));
        left -= wanted;
    }
    return chosen;
}

}  // namespace mha2mla::data
