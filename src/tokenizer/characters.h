#pragma once

#include <cstddef>
#include <string_view>

namespace mha2mla::tokenizer {

/// Bytes of the white space (Unicode White_Space) that valid UTF-8 text begins or ends with.
std::size_t leading_space(std::string_view text);
std::size_t trailing_space(std::string_view text);

/// Whether the first or last character belongs to words: letters, marks, digits, connectors (Unicode's \w).
bool starts_with_word(std::string_view text);
bool ends_with_word(std::string_view text);

}  // namespace mha2mla::tokenizer
