#include "tokenizer/hf_tokenizer.h"

#include "tokenizer/word_cache.h"

namespace mha2mla::tokenizer {

std::string HfTokenizer::token_bytes(int id, bool special) const {
    if (id < 0 || id >= vocab_size()) return {};
    const auto index = static_cast<std::size_t>(id);
    return parts_.is_special[index] && !special ? std::string() : parts_.bytes[index];
}

std::optional<int> HfTokenizer::id_of(std::string_view token) const {
    const auto added = parts_.added_vocabulary.id_of(token);
    return added ? added : parts_.bpe.vocabulary().id_of(token);
}

void HfTokenizer::append_ids(std::string_view text, bool parse_special, std::vector<int>& ids) const {
    parts_.added.split(text, parse_special, [&](const AddedTokens::Piece& piece) {
        if (piece.id) return ids.push_back(*piece.id);
        append_text(piece.text, piece.text.data() == text.data(), parse_special, ids);
    });
}

void HfTokenizer::append_text(std::string_view text, bool at_start, bool parse_special, std::vector<int>& ids) const {
    const std::string storage = parts_.normalizer.is_identity() ? "" : parts_.normalizer.apply(text);
    const std::string_view normalized = parts_.normalizer.is_identity() ? text : storage;
    parts_.added_normalized.split(normalized, parse_special, [&](const AddedTokens::Piece& piece) {
        if (piece.id) return ids.push_back(*piece.id);
        append_words(piece.text, at_start && piece.text.data() == normalized.data(), ids);
    });
}

void HfTokenizer::append_words(std::string_view text, bool at_start, std::vector<int>& ids) const {
    std::string storage;
    const auto prepared = parts_.pre_tokenizer.prepare(text, at_start, storage);
    WordCache cache(prepared.size());
    parts_.pre_tokenizer.split(prepared, [&](std::string_view word) {
        if (cache.replay(word, ids)) return;
        const std::size_t begin = ids.size();
        parts_.bpe.append(word, ids);
        cache.remember(word, begin, ids);
    });
}

std::vector<int> HfTokenizer::add_special_ids(std::vector<int> ids) const {
    return parts_.special_ids.around(std::move(ids));
}

}  // namespace mha2mla::tokenizer
