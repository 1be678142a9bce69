#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace mha2mla::tokenizer {

/// The alphabet of byte-level BPE files (GPT-2): every byte is written as one printable character, the visible ASCII
/// and Latin-1 characters as themselves, the rest as U+0100, U+0101, ... in order. The UTF-8 spelling of each byte's
/// character.
const std::array<std::string, 256>& byte_characters();

/// The bytes that a token spells; nothing where a character is outside the alphabet.
std::optional<std::string> bytes_of_byte_level(std::string_view token);

/// The spelling of bytes in the alphabet.
std::string byte_level_spelling(std::string_view bytes);

}  // namespace mha2mla::tokenizer
