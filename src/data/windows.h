#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace mha2mla::data {

/// A text file as one string, CRLF turned into LF. Throws Error where it is missing or not UTF-8.
std::string read_text_file(const std::filesystem::path& path);

/// A token stream cut into consecutive windows of equal length; what is left over at the end is dropped.
class TokenWindows {
public:
    TokenWindows(std::vector<int> tokens, int window);

    int count() const { return count_; }
    int window() const { return window_; }
    std::span<const int> operator[](int index) const;

private:
    std::vector<int> tokens_;
    int window_;
    int count_;
};

}  // namespace mha2mla::data
