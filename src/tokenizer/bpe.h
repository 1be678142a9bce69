#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "tokenizer/merge_table.h"
#include "tokenizer/vocabulary.h"

namespace mha2mla::tokenizer {

struct BpeOptions {
    bool byte_level = false;     ///< tokens spell bytes (byte_level.h); otherwise they are text
    bool byte_fallback = false;  ///< characters without a token become the tokens <0x00> .. <0xFF>
    bool ignore_merges = false;  ///< a word that is a token is that token, whatever the merges say (Llama-3)
    bool fuse_unk = false;       ///< neighbouring unknown characters share one unknown token
    std::optional<int> unk_id = {};
};

/// Byte-pair encoding of one word: a token for each of its bytes or characters, then merging. Bytes that the vocabulary
/// lacks are dropped where there is no unknown token, as Hugging Face's tokenizers do.
class Bpe {
public:
    Bpe(Vocabulary vocabulary, MergeTable merges, BpeOptions options);

    /// Appends the tokens of a word of valid UTF-8.
    void append(std::string_view word, std::vector<int>& ids) const;

    /// Whether text may be cut in front of each run of `mark` without changing any token: no rule joins something that
    /// does not end with the mark to something that begins with it.
    bool may_cut_before(std::string_view mark) const;

    /// The tokens that merging can yield; added tokens are not among them.
    const Vocabulary& vocabulary() const { return vocabulary_; }

private:
    std::optional<int> whole_word(std::string_view word) const;
    void append_bytes(std::string_view word, std::vector<int>& ids) const;
    void append_characters(std::string_view word, std::vector<int>& ids) const;
    bool append_fallback(std::string_view character, std::vector<int>& ids) const;
    void append_unknown(std::size_t word_begin, std::vector<int>& ids) const;

    Vocabulary vocabulary_;
    MergeTable merges_;
    BpeOptions options_;
    std::array<int, 256> byte_ids_;  // of the byte's token, -1 where there is none
};

/// Reads the "model" object of a tokenizer.json. Throws Error for another model type, for merges that do not refer to
/// the vocabulary and for options that change the meaning of the rest.
Bpe read_bpe(const core::JsonObject& model, bool byte_level);

}  // namespace mha2mla::tokenizer
