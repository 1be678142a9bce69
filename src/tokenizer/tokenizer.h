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

    /// Token ids of UTF-8 text. Special tokens written in the text are recognised when `parse_special` is set.
    /// `add_special` applies the model's BOS/EOS rules.
    std::vector<int> encode(std::string_view text, bool add_special, bool parse_special = true) const;
    /// Raw bytes of one token: may end inside a code point. Special tokens are empty unless `special` is set.
    virtual std::string token_bytes(int id, bool special) const = 0;
    /// Text of the ids; the exact inverse of encode(text, false) on valid UTF-8.
    std::string decode(std::span<const int> ids, bool special = false) const;

    virtual int vocab_size() const = 0;
    virtual std::optional<int> id_of(std::string_view token) const = 0;
    /// The leading space that the text of this model's first token carries (Llama-2) and that decode drops.
    virtual bool drops_leading_space() const = 0;

protected:
    virtual void append_ids(std::string_view text, bool parse_special, std::vector<int>& ids) const = 0;
    virtual std::vector<int> add_special_ids(std::vector<int> ids) const = 0;
};

/// Loads from the files of a checkpoint (Checkpoint::tokenizer_files()): tokenizer.json, else tokenizer.model;
/// tokenizer_config.json for the BOS/EOS rules. `where` names the model in errors.
std::unique_ptr<Tokenizer> load_tokenizer(const std::map<std::string, std::string>& files, const std::string& where);

/// From the bytes of a tokenizer.json (byte-level BPE: GPT-2, SmolLM, Llama-3, Qwen2; byte-fallback BPE: Llama-2).
std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view bytes, const std::string& where);
/// From the bytes of a sentencepiece .model file.
std::unique_ptr<Tokenizer> tokenizer_from_sentencepiece(std::string_view bytes, const std::string& where);

/// Turns tokens into text as they arrive; never emits half a code point.
class Detokenizer {
public:
    explicit Detokenizer(const Tokenizer& tokenizer, bool special = false);
    /// The text that became complete with this token (may be empty).
    std::string push(int id);
    /// What is left at the end; incomplete bytes become U+FFFD.
    std::string finish();

private:
    const Tokenizer& tokenizer_;
    bool special_;
    bool at_start_ = true;
    std::string pending_;
};

}  // namespace mha2mla::tokenizer
