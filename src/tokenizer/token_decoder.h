#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"

namespace mha2mla::tokenizer {

/// The byte that a byte-fallback token ("<0x0A>") stands for; nothing for any other token.
std::optional<char> fallback_byte(std::string_view token);

/// What a token of the vocabulary reads as: the "decoder" of a tokenizer.json.
class TokenDecoder {
public:
    /// Reads ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip (of one leading space), or a Sequence of these.
    /// Throws Error naming any other.
    static TokenDecoder from_json(const core::Json& json, const std::string& where);

    bool is_byte_level() const { return byte_level_; }
    bool drops_leading_space() const { return drops_leading_space_; }

    std::string bytes_of(const std::string& token) const;

private:
    void read(const core::Json& json, const std::string& where);
    void read_metaspace(const core::JsonObject& rule);
    void read_replace(const core::JsonObject& rule);
    void read_strip(const core::JsonObject& rule);

    bool byte_level_ = false;
    bool byte_fallback_ = false;
    bool drops_leading_space_ = false;
    std::vector<std::pair<std::string, std::string>> replacements_;  // pattern, content
};

}  // namespace mha2mla::tokenizer
