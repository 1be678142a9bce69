#include "data/windows.h"

#include <fmt/format.h>
#include <limits>

#include "core/error.h"

namespace mha2mla::data {

TokenWindows::TokenWindows(std::vector<int> tokens, int window, int stride)
    : tokens_(std::move(tokens)), window_(window), stride_(stride) {
    if (window < 1) {
        throw core::Error(
            {.what = "the window is not usable", .expected = "at least 1 token", .got = fmt::to_string(window)});
    }
    if (stride < 1 || stride > window) {
        throw core::Error({.what = "windows cannot follow each other so",
                           .expected = fmt::format("a stride of 1 to {} tokens", window),
                           .got = fmt::to_string(stride)});
    }
    const auto size = static_cast<std::size_t>(window);
    const std::size_t windows =
        tokens_.size() < size ? 0 : (tokens_.size() - size) / static_cast<std::size_t>(stride) + 1;
    core::invariant(windows <= std::numeric_limits<int>::max(), "windows can be counted by an int");
    count_ = static_cast<int>(windows);
}

std::span<const int> TokenWindows::operator[](int index) const {
    core::invariant(index >= 0 && index < count_, "the window exists");
    return std::span(tokens_).subspan(static_cast<std::size_t>(index) * static_cast<std::size_t>(stride_),
                                      static_cast<std::size_t>(window_));
}

}  // namespace mha2mla::data
