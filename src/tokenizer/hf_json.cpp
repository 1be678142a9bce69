#include <algorithm>
#include <fmt/format.h>

#include "core/error.h"
#include "tokenizer/hf_tokenizer.h"
#include "tokenizer/token_decoder.h"

namespace mha2mla::tokenizer {
namespace {

constexpr std::string_view space_mark = "\xe2\x96\x81";  // U+2581, what Llama-2 rules turn spaces into

const core::Json& field(const core::JsonObject& file, const char* key) {
    static const core::Json null;
    return file.has(key) ? file.raw(key) : null;
}

AddedToken read_added_token(const core::Json& json, const std::string& where) {
    const core::JsonObject token(json, where + ", added_tokens");
    const bool special = token.boolean_or("special", false);
    return {.content = token.string("content"),
            .id = static_cast<int>(token.integer("id", 0, max_token_id - 1)),
            .special = special,
            .normalized = token.boolean_or("normalized", !special),
            .lstrip = token.boolean_or("lstrip", false),
            .rstrip = token.boolean_or("rstrip", false),
            .single_word = token.boolean_or("single_word", false)};
}

std::vector<AddedToken> read_added_tokens(const core::JsonObject& file) {
    std::vector<AddedToken> tokens;
    const auto& list = field(file, "added_tokens");
    if (!list.is_null() && !list.is_array()) file.fail("added_tokens", "an array");
    for (const auto& token : list) tokens.push_back(read_added_token(token, file.where()));
    return tokens;
}

/// Added tokens that the model's vocabulary lacks; those it has must have the same id there.
Vocabulary added_vocabulary(const std::vector<AddedToken>& tokens, const Vocabulary& model, const std::string& where) {
    Vocabulary added;
    for (const auto& token : tokens) {
        const auto known = model.id_of(token.content);
        if (known == token.id) continue;
        if (known || model.has(token.id)) {
            throw core::Error({.what = fmt::format("added token '{}' contradicts the vocabulary", token.content),
                               .expected = known ? fmt::format("id {}", *known) : "an id of its own",
                               .got = fmt::format("id {}", token.id),
                               .where = where});
        }
        added.add(token.content, token.id, where);
    }
    return added;
}

/// Patterns for the text as given, or those for normalized text, in their normalized spelling.
AddedTokens select(const std::vector<AddedToken>& tokens, bool normalized, const Normalizer& normalizer) {
    std::vector<AddedToken> selected;
    for (auto token : tokens) {
        if (token.normalized != normalized) continue;
        if (normalized) token.content = normalizer.apply(token.content);
        selected.push_back(std::move(token));
    }
    return AddedTokens(std::move(selected));
}

void fill_bytes(HfParts& parts, const std::vector<AddedToken>& added, const TokenDecoder& decoder) {
    const Vocabulary& model = parts.bpe.vocabulary();
    parts.bytes.resize(static_cast<std::size_t>(std::max(model.size(), parts.added_vocabulary.size())));
    parts.is_special.resize(parts.bytes.size());
    for (int id = 0; id < model.size(); ++id) {
        if (model.has(id)) parts.bytes[static_cast<std::size_t>(id)] = decoder.bytes_of(model.token(id));
    }
    for (const auto& token : added) {
        parts.bytes[static_cast<std::size_t>(token.id)] = token.content;
        parts.is_special[static_cast<std::size_t>(token.id)] = token.special;
    }
}

TokenDecoder read_decoder(const core::JsonObject& file, const PreTokenizer& pre_tokenizer) {
    auto decoder = TokenDecoder::from_json(field(file, "decoder"), file.where());
    if (decoder.is_byte_level() != pre_tokenizer.is_byte_level()) {
        throw core::Error({.what = "the decoder does not fit the pre_tokenizer",
                           .expected = "ByteLevel in both or in neither",
                           .where = file.where()});
    }
    return decoder;
}

}  // namespace

HfParts read_tokenizer_json(std::string_view bytes, const std::string& where) {
    const auto json = core::parse_json(bytes, where);
    const core::JsonObject file(json, where);
    const auto added = read_added_tokens(file);
    auto normalizer = Normalizer::from_json(field(file, "normalizer"), where);
    auto pre_tokenizer = PreTokenizer::from_json(field(file, "pre_tokenizer"), where);
    const auto decoder = read_decoder(file, pre_tokenizer);
    auto bpe = read_bpe(file.object("model"), pre_tokenizer.is_byte_level());
    // The same tokens, but found for small words, which the cache may know, instead of a whole book at once.
    if (pre_tokenizer.is_one_word() && bpe.may_cut_before(space_mark)) pre_tokenizer.cut_before(space_mark);
    HfParts parts{.added = select(added, false, normalizer),
                  .normalizer = normalizer,
                  .added_normalized = select(added, true, normalizer),
                  .pre_tokenizer = std::move(pre_tokenizer),
                  .bpe = std::move(bpe),
                  .special_ids = {},
                  .added_vocabulary = {},
                  .bytes = {},
                  .is_special = {},
                  .drops_leading_space = decoder.drops_leading_space()};
    parts.added_vocabulary = added_vocabulary(added, parts.bpe.vocabulary(), where);
    fill_bytes(parts, added, decoder);
    const int id_limit = static_cast<int>(parts.bytes.size());
    parts.special_ids = read_post_processor(field(file, "post_processor"), id_limit, where);
    return parts;
}

}  // namespace mha2mla::tokenizer
