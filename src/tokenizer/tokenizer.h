#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mha2mla::tokenizer {

/// Text to token ids and back. Immutable after loading and safe to share between threads.
class Tokenizer {
public:
    virtual ~Tokenizer() = default;

    /// Token ids of UTF-8 text (at most 1 GiB); invalid bytes count as U+FFFD, as in Python's errors="replace".
    /// Special tokens written in the text are recognised when `parse_special` is set. `add_special` applies the model's
    /// BOS/EOS rules. Characters that the vocabulary cannot spell become its unknown token or, where it has none, are
    /// dropped, as Hugging Face's tokenizers do (SmolLM2 lacks a few control characters).
    std::vector<int> encode(std::string_view text, bool add_special, bool parse_special = true) const;
    /// Raw bytes of one token: may end inside a code point. Special tokens are empty unless `special` is set, and so
    /// are ids without a token (models pad their vocabulary).
    virtual std::string token_bytes(int id, bool special) const = 0;
    /// Text of the ids, always valid UTF-8 (what is not becomes U+FFFD). The exact inverse of encode(text, false) on
    /// valid UTF-8, but for what the tokenizer itself gives up: normalization, dropped characters, and the space that
    /// Llama-2 rules put behind special tokens.
    std::string decode(std::span<const int> ids, bool special = false) const;

    /// One more than the largest id.
    virtual int vocab_size() const = 0;
    /// The id of a token as the tokenizer's file spells it.
    virtual std::optional<int> id_of(std::string_view token) const = 0;
    /// Whether the text of the first token carries a space that encode put there (Llama-2) and that decode drops.
    virtual bool drops_leading_space() const = 0;

protected:
    virtual void append_ids(std::string_view text, bool parse_special, std::vector<int>& ids) const = 0;
    virtual std::vector<int> add_special_ids(std::vector<int> ids) const = 0;
};

/// Loads from the files of a checkpoint (Checkpoint::tokenizer_files()): tokenizer.json, else tokenizer.model;
/// tokenizer_config.json for the BOS/EOS rules. `where` names the model in errors. Files are checked as coming from a
/// stranger: throws Error naming what is broken or not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::map<std::string, std::string>& files, const std::string& where);

/// From the bytes of a tokenizer.json (byte-level BPE: GPT-2, SmolLM, Llama-3, Qwen2; byte-fallback BPE: Llama-2). Its
/// truncation and padding settings, which are for batches, are left aside.
std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view bytes, const std::string& where);
/// From the bytes of a sentencepiece .model file. Encoding with `add_special` begins with BOS where the model has one.
std::unique_ptr<Tokenizer> tokenizer_from_sentencepiece(std::string_view bytes, const std::string& where);

/// Turns tokens into text as they arrive; never emits half a code point. The tokenizer must outlive it.
class Detokenizer {
public:
    explicit Detokenizer(const Tokenizer& tokenizer, bool special = false);
    /// The text that became complete with this token (may be empty).
    std::string push(int id);
    /// What is left at the end; incomplete bytes become U+FFFD. The next push begins a new text.
    std::string finish();

private:
    const Tokenizer& tokenizer_;
    bool special_;
    bool at_start_ = true;
    std::string pending_;
};

}  // namespace mha2mla::tokenizer
