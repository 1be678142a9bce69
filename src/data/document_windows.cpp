#include "data/document_windows.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "core/error.h"

namespace mha2mla::data {

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

std::vector<std::vector<int>> mix_evenly(std::vector<std::vector<std::vector<int>>> texts, std::size_t count) {
    // The shortest first: what it does not have falls to the others.
    std::sort(texts.begin(), texts.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
    std::vector<std::vector<int>> chosen;
    for (std::size_t t = 0; t < texts.size(); ++t) {
        auto& text = texts[t];
        const std::size_t share = std::min(text.size(), (count - chosen.size()) / (texts.size() - t));
        for (std::size_t i = 0; i < share; ++i) chosen.push_back(std::move(text[i * text.size() / share]));
    }
    return chosen;
}

}  // namespace mha2mla::data
