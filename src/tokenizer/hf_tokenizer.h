#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/special_ids.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::tokenizer {

/// The parts of a tokenizer.json, in the order in which text passes them.
struct HfParts {
    AddedTokens added;  ///< found in the text as given
    Normalizer normalizer;
    AddedTokens added_normalized;  ///< found in normalized text
    PreTokenizer pre_tokenizer;
    Bpe bpe;
    SpecialIds special_ids;
    Vocabulary added_vocabulary;     ///< added tokens that the BPE does not have
    std::vector<std::string> bytes;  ///< of each id, what it reads as
    std::vector<bool> is_special;    ///< by id
    bool drops_leading_space = false;
};

/// Reads and checks a tokenizer.json. Its truncation and padding settings are for batches and are left aside.
HfParts read_tokenizer_json(std::string_view bytes, const std::string& where);

/// A tokenizer described by a tokenizer.json of Hugging Face's library.
class HfTokenizer final : public Tokenizer {
public:
    explicit HfTokenizer(HfParts parts) : parts_(std::move(parts)) {}

    std::string token_bytes(int id, bool special) const override;
    int vocab_size() const override { return static_cast<int>(parts_.bytes.size()); }
    std::optional<int> id_of(std::string_view token) const override;
    bool drops_leading_space() const override { return parts_.drops_leading_space; }

protected:
    void append_ids(std::string_view text, bool parse_special, std::vector<int>& ids) const override;
    std::vector<int> add_special_ids(std::vector<int> ids) const override;

private:
    void append_text(std::string_view text, bool at_start, bool parse_special, std::vector<int>& ids) const;
    void append_words(std::string_view text, bool at_start, std::vector<int>& ids) const;

    HfParts parts_;
};

}  // namespace mha2mla::tokenizer
