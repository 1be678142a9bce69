#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace mha2mla::data {

/// A text file as one string, CRLF turned into LF. Throws Error where it is missing or not UTF-8.
std::string read_text_file(const std::filesystem::path& path);

/// Bytes as a text: CRLF turned into LF. Throws Error, naming `where`, for what is not UTF-8.
std::string checked_text(std::string bytes, const std::string& where);

/// The documents of a file: of a .jsonl file the field "text" of each line's object (empty lines are skipped), of any
/// other file its whole text. Throws Error naming the line.
std::vector<std::string> read_documents(const std::filesystem::path& path);

/// A token stream cut into windows of equal length, one every `stride` tokens; what is left over at the end is dropped.
class TokenWindows {
public:
    /// `window` is the length in tokens, `stride` at most that; both are at least 1: anything else is an Error.
    TokenWindows(std::vector<int> tokens, int window, int stride);
    /// Windows that do not overlap.
    TokenWindows(std::vector<int> tokens, int window) : TokenWindows(std::move(tokens), window, window) {}

    int count() const { return count_; }
    int window() const { return window_; }
    int stride() const { return stride_; }
    /// The tokens [index * stride, index * stride + window), for 0 <= index < count().
    std::span<const int> operator[](int index) const;

private:
    std::vector<int> tokens_;
    int window_;
    int stride_;
    int count_;
};

}  // namespace mha2mla::data
