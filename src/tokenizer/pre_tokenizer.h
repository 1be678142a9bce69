#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/function_ref.h"
#include "core/json.h"
#include "tokenizer/regex.h"

namespace mha2mla::tokenizer {

/// Cuts text into the words that BPE works on: the "pre_tokenizer" of a tokenizer.json.
class PreTokenizer {
public:
    PreTokenizer() = default;
    /// Reads null, ByteLevel, Digits, Split (by a pattern, isolated), Metaspace, or a Sequence that ends with its
    /// ByteLevel or Metaspace. Throws Error naming any other.
    static PreTokenizer from_json(const core::Json& json, const std::string& where);

    /// Whether words are spelled in the byte-level alphabet (byte_level.h) in the vocabulary.
    bool is_byte_level() const { return byte_level_; }

    /// Whether the text as a whole is one word.
    bool is_one_word() const { return stages_.empty(); }
    /// From now on a word begins at each run of `mark`, one character.
    void cut_before(std::string_view mark);

    /// The text that split() works on: with the leading space and the space marks that the rules ask for. Returns
    /// `text` itself, or a view of `storage`.
    std::string_view prepare(std::string_view text, bool at_start, std::string& storage) const;

    /// Hands out the words of prepared text in order: views of it.
    void split(std::string_view prepared, core::FunctionRef<void(std::string_view)> emit) const;

private:
    enum class Prefix { never, at_start, always };
    using Emit = core::FunctionRef<void(std::string_view)>;

    void read(const core::Json& json, const std::string& where);
    void read_byte_level(const core::JsonObject& rule);
    void read_digits(const core::JsonObject& rule);
    void read_split(const core::JsonObject& rule);
    void read_metaspace(const core::JsonObject& rule);
    void split_from(std::size_t stage, std::string_view text, Emit emit) const;

    std::vector<Regex> stages_;  // each cuts the pieces of the one before
    bool byte_level_ = false;
    bool complete_ = false;  // ByteLevel or Metaspace was read: nothing may follow
    Prefix prefix_ = Prefix::never;
    std::string space_ = " ";  // what a space becomes, and what is prefixed
};

}  // namespace mha2mla::tokenizer
