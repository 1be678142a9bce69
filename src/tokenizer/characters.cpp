#include "tokenizer/characters.h"

#include "core/utf8.h"
#include "tokenizer/regex.h"

namespace mha2mla::tokenizer {
namespace {

bool is_space(char32_t c) {
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_word(std::string_view character) {
    static const Regex word(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])", "the word pattern");
    return word.matches(character);
}

std::string_view first_character(std::string_view text) { return text.substr(0, core::read_utf8(text).bytes); }

std::string_view last_character(std::string_view text) {
    std::size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0u) == 0x80) --begin;
    return text.substr(begin);
}

}  // namespace

std::size_t leading_space(std::string_view text) {
    std::size_t bytes = 0;
    while (bytes < text.size()) {
        const auto step = core::read_utf8(text.substr(bytes));
        if (!is_space(step.value)) break;
        bytes += step.bytes;
    }
    return bytes;
}

std::size_t trailing_space(std::string_view text) {
    std::size_t bytes = 0;
    while (bytes < text.size()) {
        const auto character = last_character(text.substr(0, text.size() - bytes));
        if (!is_space(core::read_utf8(character).value)) break;
        bytes += character.size();
    }
    return bytes;
}

bool starts_with_word(std::string_view text) { return !text.empty() && is_word(first_character(text)); }

bool ends_with_word(std::string_view text) { return !text.empty() && is_word(last_character(text)); }

}  // namespace mha2mla::tokenizer
