#include "data/windows.h"

#include <fmt/format.h>
#include <limits>

#include "core/error.h"

namespace mha2mla::data {

TokenWindows::TokenWindows(std::vector<int> tokens, int window) : tokens_(std::move(tokens)), window_(window) {
    if (window < 1) {
        throw core::Error(
            {.what = "the window is not usable", .expected = "at least 1 token", .got = fmt::to_string(window)});
    }
    const std::size_t windows = tokens_.size() / static_cast<std::size_t>(window);
    core::invariant(windows <= std::numeric_limits<int>::max(), "windows can be counted by an int");
    count_ = static_cast<int>(windows);
}

std::span<const int> TokenWindows::operator[](int index) const {
    core::invariant(index >= 0 && index < count_, "the window exists");
    const auto length = static_cast<std::size_t>(window_);
    return std::span(tokens_).subspan(static_cast<std::size_t>(index) * length, length);
}

}  // namespace mha2mla::data
