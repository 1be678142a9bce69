#pragma once

#include <bitset>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/function_ref.h"

namespace mha2mla::tokenizer {

/// A token that is found in the text as a whole, before anything else looks at the text.
struct AddedToken {
    std::string content;
    int id = 0;
    bool special = false;      ///< marks structure (BOS, turns) and is no text
    bool normalized = false;   ///< looked for in normalized text rather than in the text as given
    bool lstrip = false;       ///< takes the white space before it
    bool rstrip = false;       ///< takes the white space after it
    bool single_word = false;  ///< only where no word character touches it
};

/// Finds added tokens in text: the leftmost match, the longest of those that start there, then on behind it.
class AddedTokens {
public:
    AddedTokens() = default;
    /// Tokens without content are never found.
    explicit AddedTokens(std::vector<AddedToken> tokens);

    /// A piece of the text: an added token, or ordinary text where `id` is empty.
    struct Piece {
        std::string_view text;
        std::optional<int> id;
    };

    /// Cuts valid UTF-8 text into added tokens and the (non-empty) text between them. Without `parse_special`, special
    /// tokens written in the text stay text.
    void split(std::string_view text, bool parse_special, core::FunctionRef<void(const Piece&)> emit) const;

private:
    const AddedToken* longest_match(std::string_view text) const;
    bool is_wanted(const AddedToken& token, std::string_view before, std::string_view after, bool parse_special) const;

    std::vector<AddedToken> tokens_;  // sorted by content
    std::bitset<256> first_bytes_;
};

}  // namespace mha2mla::tokenizer
