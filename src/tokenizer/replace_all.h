#pragma once

#include <string>
#include <string_view>

namespace mha2mla::tokenizer {

/// The text with each occurrence of a non-empty pattern replaced, from left to right.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace mha2mla::tokenizer
