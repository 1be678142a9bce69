#include "core/utf8.h"

namespace mha2mla::core {
namespace {

constexpr char32_t replacement = 0xfffd;

std::size_t bytes_announced_by(unsigned char lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xc2) return 0;  // continuation bytes and leads of overlong forms
    if (lead < 0xe0) return 2;
    if (lead < 0xf0) return 3;
    return lead < 0xf5 ? 4 : 0;
}

/// The second byte's range is narrower after some leads: no overlong forms, no surrogates, nothing above U+10FFFF.
bool continues(unsigned char lead, std::size_t index, unsigned char byte) {
    const unsigned char low = index > 1 ? 0x80 : lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = index > 1 ? 0xbf : lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return byte >= low && byte <= high;
}

}  // namespace

Utf8Step read_utf8(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text.front());
    const std::size_t bytes = bytes_announced_by(lead);
    if (bytes == 0) return {Utf8Step::Kind::invalid, 1, replacement};
    if (bytes == 1) return {Utf8Step::Kind::code_point, 1, lead};
    char32_t value = lead & (0x7fu >> bytes);
    for (std::size_t index = 1; index < bytes; ++index) {
        if (index == text.size()) return {Utf8Step::Kind::incomplete, index, replacement};
        const auto byte = static_cast<unsigned char>(text[index]);
        if (!continues(lead, index, byte)) return {Utf8Step::Kind::invalid, index, replacement};
        value = (value << 6) | (byte & 0x3fu);
    }
    return {Utf8Step::Kind::code_point, bytes, value};
}

void append_utf8(char32_t code_point, std::string& text) {
    const auto tail = [&](int shift) { text += static_cast<char>(0x80u | ((code_point >> shift) & 0x3fu)); };
    if (code_point < 0x80) {
        text += static_cast<char>(code_point);
    } else if (code_point < 0x800) {
        text += static_cast<char>(0xc0u | (code_point >> 6));
        tail(0);
    } else if (code_point < 0x10000) {
        text += static_cast<char>(0xe0u | (code_point >> 12));
        tail(6), tail(0);
    } else {
        text += static_cast<char>(0xf0u | (code_point >> 18));
        tail(12), tail(6), tail(0);
    }
}

std::size_t valid_utf8_prefix(std::string_view text) {
    std::size_t position = 0;
    while (position < text.size()) {
        const auto step = read_utf8(text.substr(position));
        if (step.kind != Utf8Step::Kind::code_point) break;
        position += step.bytes;
    }
    return position;
}

std::string replace_invalid_utf8(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    while (!text.empty()) {
        const auto step = read_utf8(text);
        if (step.kind == Utf8Step::Kind::code_point) {
            result.append(text.substr(0, step.bytes));
        } else {
            append_utf8(replacement, result);
        }
        text.remove_prefix(step.bytes);
    }
    return result;
}

}  // namespace mha2mla::core
