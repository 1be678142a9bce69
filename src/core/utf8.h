#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mha2mla::core {

/// What stands at the front of a text: a code point, bytes that can never become one, or the beginning of one.
struct Utf8Step {
    enum class Kind { code_point, invalid, incomplete };
    Kind kind;
    std::size_t bytes;  ///< how many bytes it takes, at least 1
    char32_t value;     ///< the code point; U+FFFD where there is none
};

/// Reads the front of a non-empty text. Surrogates, overlong forms and values above U+10FFFF are invalid; an invalid
/// step covers the longest beginning of a code point, as the Unicode standard recommends for replacement.
Utf8Step read_utf8(std::string_view text);

void append_utf8(char32_t code_point, std::string& text);

/// The number of bytes before the first error; the text's size where it is valid.
std::size_t valid_utf8_prefix(std::string_view text);

/// The text with every invalid or incomplete sequence replaced by one U+FFFD, as Python's errors="replace" does.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace mha2mla::core
