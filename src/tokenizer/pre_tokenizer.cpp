#include "tokenizer/pre_tokenizer.h"

#include <fmt/format.h>

#include "core/utf8.h"

namespace mha2mla::tokenizer {
namespace {

// GPT-2's words, as published: contractions, letters, numbers, other signs, white space (the last space goes with the
// word behind it).
constexpr const char* gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// A character as a pattern spells it, inside and outside brackets.
std::string escaped(std::string_view character) {
    return fmt::format("\\x{{{:x}}}", static_cast<std::uint32_t>(core::read_utf8(character).value));
}

}  // namespace

PreTokenizer PreTokenizer::from_json(const core::Json& json, const std::string& where) {
    PreTokenizer rules;
    rules.read(json, where);
    return rules;
}

void PreTokenizer::read(const core::Json& json, const std::string& where) {
    if (json.is_null()) return;
    const core::JsonObject rule(json, where + ", pre_tokenizer");
    const auto type = rule.string("type");
    if (complete_) rule.fail("type", "nothing behind ByteLevel or Metaspace");
    if (type == "Sequence") {
        if (!rule.raw("pretokenizers").is_array()) rule.fail("pretokenizers", "an array");
        for (const auto& part : rule.raw("pretokenizers")) read(part, where);
    } else if (type == "ByteLevel") {
        read_byte_level(rule);
    } else if (type == "Digits") {
        read_digits(rule);
    } else if (type == "Split") {
        read_split(rule);
    } else if (type == "Metaspace") {
        read_metaspace(rule);
    } else {
        rule.fail("type", "ByteLevel, Digits, Split, Metaspace or Sequence (other pre-tokenizers are not supported)");
    }
}

void PreTokenizer::read_byte_level(const core::JsonObject& rule) {
    byte_level_ = complete_ = true;
    if (rule.boolean_or("add_prefix_space", true)) {
        if (!stages_.empty()) rule.fail("add_prefix_space", "false behind other pre-tokenizers");
        prefix_ = Prefix::always;
    }
    if (rule.boolean_or("use_regex", true)) stages_.emplace_back(gpt2_pattern, rule.where());
}

void PreTokenizer::read_digits(const core::JsonObject& rule) {
    stages_.emplace_back(rule.boolean_or("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)", rule.where());
}

void PreTokenizer::read_split(const core::JsonObject& rule) {
    if (rule.string("behavior") != "Isolated") rule.fail("behavior", "Isolated (others are not supported)");
    if (rule.boolean_or("invert", false)) rule.fail("invert", "false");
    stages_.emplace_back(rule.object("pattern").string("Regex"), rule.where());
}

void PreTokenizer::read_metaspace(const core::JsonObject& rule) {
    if (!stages_.empty()) rule.fail("type", "Metaspace alone or first");
    complete_ = true;
    space_ = rule.string("replacement");
    if (space_.empty() || core::read_utf8(space_).bytes != space_.size()) rule.fail("replacement", "one character");
    const auto scheme =
        rule.string_or("prepend_scheme", rule.boolean_or("add_prefix_space", true) ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never") {
        rule.fail("prepend_scheme", "always, first or never");
    }
    prefix_ = scheme == "always" ? Prefix::always : scheme == "first" ? Prefix::at_start : Prefix::never;
    // A word begins at each mark.
    const auto mark = escaped(space_);
    if (rule.boolean_or("split", true)) stages_.emplace_back(fmt::format("{0}[^{0}]*", mark), rule.where());
}

void PreTokenizer::cut_before(std::string_view mark) {
    stages_.emplace_back(fmt::format("{0}+[^{0}]*", escaped(mark)), "the space mark");
}

std::string_view PreTokenizer::prepare(std::string_view text, bool at_start, std::string& storage) const {
    const bool marks = space_ != " ";
    const bool prefixes = prefix_ == Prefix::always || (prefix_ == Prefix::at_start && at_start);
    const bool needs_prefix = prefixes && !text.starts_with(space_) && !text.starts_with(' ');
    if (!needs_prefix && !marks) return text;
    storage = needs_prefix ? space_ : "";
    for (const char byte : text) byte == ' ' ? storage.append(space_) : storage.append(1, byte);
    return storage;
}

void PreTokenizer::split(std::string_view prepared, Emit emit) const { split_from(0, prepared, emit); }

void PreTokenizer::split_from(std::size_t stage, std::string_view text, Emit emit) const {
    if (stage == stages_.size()) return emit(text);
    stages_[stage].for_each_piece(text, [&](std::string_view piece) { split_from(stage + 1, piece, emit); });
}

}  // namespace mha2mla::tokenizer
