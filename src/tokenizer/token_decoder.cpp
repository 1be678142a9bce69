#include "tokenizer/token_decoder.h"

#include <charconv>

#include "tokenizer/byte_level.h"
#include "tokenizer/replace_all.h"

namespace mha2mla::tokenizer {

std::optional<char> fallback_byte(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with(">")) return std::nullopt;
    unsigned byte = 0;
    const char* end = token.data() + 5;
    const auto [stop, error] = std::from_chars(token.data() + 3, end, byte, 16);
    return stop == end && error == std::errc() ? std::optional(static_cast<char>(byte)) : std::nullopt;
}

TokenDecoder TokenDecoder::from_json(const core::Json& json, const std::string& where) {
    TokenDecoder decoder;
    decoder.read(json, where);
    return decoder;
}

void TokenDecoder::read(const core::Json& json, const std::string& where) {
    const core::JsonObject rule(json, where + ", decoder");
    const auto type = rule.string("type");
    if (type == "Sequence") {
        if (!rule.raw("decoders").is_array()) rule.fail("decoders", "an array");
        for (const auto& part : rule.raw("decoders")) read(part, where);
    } else if (type == "ByteLevel") {
        byte_level_ = true;
    } else if (type == "ByteFallback") {
        byte_fallback_ = true;
    } else if (type == "Metaspace") {
        read_metaspace(rule);
    } else if (type == "Replace") {
        read_replace(rule);
    } else if (type == "Strip") {
        read_strip(rule);
    } else if (type != "Fuse") {
        rule.fail("type",
                  "ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip or Sequence (others are not supported)");
    }
}

void TokenDecoder::read_metaspace(const core::JsonObject& rule) {
    const auto mark = rule.string("replacement");
    if (mark.empty()) rule.fail("replacement", "one character");
    replacements_.emplace_back(mark, " ");
    const auto scheme =
        rule.string_or("prepend_scheme", rule.boolean_or("add_prefix_space", true) ? "always" : "never");
    drops_leading_space_ = scheme != "never";
}

void TokenDecoder::read_replace(const core::JsonObject& rule) {
    const auto pattern = rule.object("pattern").string("String");
    if (pattern.empty()) rule.fail("pattern", "a string that is not empty");
    replacements_.emplace_back(pattern, rule.string("content"));
}

void TokenDecoder::read_strip(const core::JsonObject& rule) {
    if (rule.string("content") != " ") rule.fail("content", "a space");
    drops_leading_space_ = rule.integer("start", 0, 1) == 1;
    rule.integer("stop", 0, 0);
}

std::string TokenDecoder::bytes_of(const std::string& token) const {
    // A token outside the byte alphabet can only be one that was added as text.
    if (byte_level_) return bytes_of_byte_level(token).value_or(token);
    const auto byte = byte_fallback_ ? fallback_byte(token) : std::nullopt;
    if (byte) return {*byte};
    std::string text = token;
    for (const auto& [pattern, content] : replacements_) text = replace_all(text, pattern, content);
    return text;
}

}  // namespace mha2mla::tokenizer
