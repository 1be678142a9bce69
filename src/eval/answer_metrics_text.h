#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mha2mla::eval {

// What the published metrics, which are Python, make of text: code points, and the classes of its str and re.

/// Invalid bytes become U+FFFD.
std::u32string to_code_points(std::string_view utf8);
std::string to_utf8(std::u32string_view code_points);

/// What str.split() and \s call white space.
bool is_space(char32_t code);
/// \w: letters, numbers, and the underscore.
bool is_word(char32_t code);
/// \d
bool is_decimal(char32_t code);
/// string.punctuation: that of ASCII
bool is_ascii_punctuation(char32_t code);

/// str.lower()
std::u32string lower_case(std::u32string_view text);
/// str.split()
std::vector<std::u32string> split_words(std::u32string_view text);

}  // namespace mha2mla::eval
