#include "data/document_windows.h"

#include <algorithm>
#include <cstddef>

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

}  // namespace mha2mla::data
