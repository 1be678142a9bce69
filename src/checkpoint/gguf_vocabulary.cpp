#include "checkpoint/gguf_vocabulary.h"

#include <fmt/format.h>
#include <unordered_set>

#include "core/error.h"
#include "core/utf8.h"

namespace mha2mla::checkpoint {
namespace {

constexpr const char* model_key = "tokenizer.ggml.model";
constexpr const char* pre_key = "tokenizer.ggml.pre";
constexpr const char* tokens_key = "tokenizer.ggml.tokens";
constexpr const char* types_key = "tokenizer.ggml.token_type";
constexpr const char* scores_key = "tokenizer.ggml.scores";
constexpr const char* merges_key = "tokenizer.ggml.merges";
constexpr const char* template_key = "tokenizer.chat_template";

void check_text(const GgufMetadata& metadata, const char* key, std::string_view text) {
    if (core::valid_utf8_prefix(text) != text.size()) metadata.fail(key, "UTF-8", quoted(text));
}

void check_size(const GgufMetadata& metadata, const char* key, std::size_t size, std::size_t tokens) {
    if (size != tokens) metadata.fail(key, fmt::format("{} items, one per token", tokens), fmt::format("{}", size));
}

std::vector<std::string_view> read_tokens(const GgufMetadata& metadata) {
    auto tokens = metadata.strings(tokens_key);
    std::unordered_set<std::string_view> seen;
    for (const auto token : tokens) {
        check_text(metadata, tokens_key, token);
        if (!seen.insert(token).second) metadata.fail(tokens_key, "distinct tokens", quoted(token) + " twice");
    }
    return tokens;
}

std::vector<TokenType> read_types(const GgufMetadata& metadata, std::size_t tokens) {
    std::vector<TokenType> types;
    for (const auto type : metadata.integers(types_key, 1, 6)) types.push_back(static_cast<TokenType>(type));
    check_size(metadata, types_key, types.size(), tokens);
    return types;
}

/// A token id; all bits set means none.
std::optional<int> read_id(const GgufMetadata& metadata, const std::string& name, std::size_t tokens) {
    const std::string key = "tokenizer.ggml." + name;
    if (!metadata.has(key)) return std::nullopt;
    const auto id = metadata.integer(key, -1, UINT32_MAX);
    if (id == -1 || id == UINT32_MAX) return std::nullopt;
    return static_cast<int>(metadata.integer(key, 0, static_cast<std::int64_t>(tokens) - 1));
}

void read_byte_level(const GgufMetadata& metadata, GgufVocabulary& vocabulary) {
    vocabulary.pre_tokenizer = metadata.string(pre_key);
    vocabulary.merges = metadata.strings(merges_key);
    for (const auto merge : vocabulary.merges) check_text(metadata, merges_key, merge);
    // Llama-3's text always begins with BOS: llama.cpp's default for its pre-tokenizer.
    vocabulary.add_bos = vocabulary.pre_tokenizer.starts_with("llama");
}

void read_sentencepiece(const GgufMetadata& metadata, GgufVocabulary& vocabulary) {
    vocabulary.scores = metadata.numbers(scores_key);
    check_size(metadata, scores_key, vocabulary.scores.size(), vocabulary.tokens.size());
    vocabulary.add_bos = true;
    vocabulary.add_space_prefix = metadata.boolean_or("tokenizer.ggml.add_space_prefix", true);
    for (const char* normalization :
         {"tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.precompiled_charsmap"}) {
        if (!metadata.has(normalization)) continue;
        throw core::Error(
            {.what = fmt::format("the text normalization of metadata key '{}' is not supported", normalization),
             .where = metadata.where()});
    }
}

void read_special_ids(const GgufMetadata& metadata, GgufVocabulary& vocabulary) {
    const std::size_t tokens = vocabulary.tokens.size();
    vocabulary.bos = read_id(metadata, "bos_token_id", tokens);
    vocabulary.eos = read_id(metadata, "eos_token_id", tokens);
    vocabulary.eot = read_id(metadata, "eot_token_id", tokens);
    vocabulary.unknown = read_id(metadata, "unknown_token_id", tokens);
    vocabulary.padding = read_id(metadata, "padding_token_id", tokens);
    vocabulary.add_bos = metadata.boolean_or("tokenizer.ggml.add_bos_token", vocabulary.add_bos);
    vocabulary.add_eos = metadata.boolean_or("tokenizer.ggml.add_eos_token", false);
    if (vocabulary.add_bos && !vocabulary.bos)
        metadata.fail("tokenizer.ggml.bos_token_id", "a token: text begins with it");
    if (vocabulary.add_eos && !vocabulary.eos)
        metadata.fail("tokenizer.ggml.eos_token_id", "a token: text ends with it");
}

}  // namespace

std::vector<int> GgufVocabulary::end_ids() const {
    std::vector<int> ids;
    if (eos) ids.push_back(*eos);
    if (eot && eot != eos) ids.push_back(*eot);
    return ids;
}

std::optional<GgufVocabulary> read_vocabulary(const GgufMetadata& metadata) {
    if (!metadata.has(model_key)) return std::nullopt;
    GgufVocabulary vocabulary;
    vocabulary.model = metadata.string(model_key);
    if (vocabulary.model != "gpt2" && vocabulary.model != "llama") {
        metadata.fail(model_key, "'gpt2' (byte-level BPE) or 'llama' (sentencepiece BPE)", quoted(vocabulary.model));
    }
    vocabulary.tokens = read_tokens(metadata);
    vocabulary.types = read_types(metadata, vocabulary.tokens.size());
    vocabulary.model == "gpt2" ? read_byte_level(metadata, vocabulary) : read_sentencepiece(metadata, vocabulary);
    read_special_ids(metadata, vocabulary);
    if (metadata.has(template_key)) {
        vocabulary.chat_template = metadata.string(template_key);
        check_text(metadata, template_key, *vocabulary.chat_template);
    }
    return vocabulary;
}

}  // namespace mha2mla::checkpoint
