#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/gguf_metadata.h"

namespace mha2mla::checkpoint {

/// What a token is, with the numbers of the format.
enum class TokenType { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

/// The tokenizer.* metadata of a GGUF file. Token id = index. Points into the file's bytes; all text is valid UTF-8.
struct GgufVocabulary {
    std::string_view model;                              ///< "gpt2": byte-level BPE; "llama": sentencepiece BPE
    std::string_view pre_tokenizer;                      ///< of "gpt2": "smollm", "llama-bpe", ...
    std::vector<std::string_view> tokens;                ///< no two alike
    std::vector<TokenType> types;                        ///< one per token
    std::vector<double> scores;                          ///< one per token for "llama", else empty
    std::vector<std::string_view> merges;                ///< "left right", best first, for "gpt2"
    std::optional<int> bos, eos, eot, unknown, padding;  ///< eot: end of a turn, where it differs from eos
    bool add_bos = false;
    bool add_eos = false;
    bool add_space_prefix = false;  ///< "llama": the text gets a leading space
    std::optional<std::string_view> chat_template;

    std::string_view token(int id) const { return tokens[static_cast<std::size_t>(id)]; }
    /// eos, then eot: the tokens that end generation.
    std::vector<int> end_ids() const;
};

/// Empty where the file has no vocabulary. Throws Error on kinds of vocabulary that we cannot reproduce.
std::optional<GgufVocabulary> read_vocabulary(const GgufMetadata& metadata);

}  // namespace mha2mla::checkpoint
