#include "tokenizer/bpe.h"

#include <algorithm>
#include <fmt/format.h>

#include "core/utf8.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/merge_symbols.h"

namespace mha2mla::tokenizer {

Bpe::Bpe(Vocabulary vocabulary, MergeTable merges, BpeOptions options)
    : vocabulary_(std::move(vocabulary)), merges_(std::move(merges)), options_(options) {
    for (std::size_t byte = 0; byte < byte_ids_.size(); ++byte) {
        const std::string token = options_.byte_level ? byte_characters()[byte] : fmt::format("<0x{:02X}>", byte);
        byte_ids_[byte] = vocabulary_.id_of(token).value_or(-1);
    }
}

void Bpe::append(std::string_view word, std::vector<int>& ids) const {
    if (options_.ignore_merges) {
        if (const auto id = whole_word(word)) return ids.push_back(*id);
    }
    const std::size_t begin = ids.size();
    options_.byte_level ? append_bytes(word, ids) : append_characters(word, ids);
    merge_symbols(ids, begin, merges_);
}

bool Bpe::may_cut_before(std::string_view mark) const {
    // Without a token of its own the mark could fuse with unknown neighbours.
    if (options_.byte_level || options_.ignore_merges || !vocabulary_.id_of(mark)) return false;
    return !merges_.has_rule([&](int left, int right) {
        return vocabulary_.token(right).starts_with(mark) && !vocabulary_.token(left).ends_with(mark);
    });
}

std::optional<int> Bpe::whole_word(std::string_view word) const {
    return vocabulary_.id_of(options_.byte_level ? byte_level_spelling(word) : std::string(word));
}

void Bpe::append_bytes(std::string_view word, std::vector<int>& ids) const {
    const std::size_t begin = ids.size();
    for (const char byte : word) {
        const int id = byte_ids_[static_cast<unsigned char>(byte)];
        id >= 0 ? ids.push_back(id) : append_unknown(begin, ids);
    }
}

void Bpe::append_characters(std::string_view word, std::vector<int>& ids) const {
    const std::size_t begin = ids.size();
    while (!word.empty()) {
        const auto character = word.substr(0, core::read_utf8(word).bytes);
        if (const auto id = vocabulary_.id_of(character)) {
            ids.push_back(*id);
        } else if (!options_.byte_fallback || !append_fallback(character, ids)) {
            append_unknown(begin, ids);
        }
        word.remove_prefix(character.size());
    }
}

/// All bytes of the character or, where one has no token, none.
bool Bpe::append_fallback(std::string_view character, std::vector<int>& ids) const {
    const auto id_of = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
    if (std::any_of(character.begin(), character.end(), [&](char byte) { return id_of(byte) < 0; })) return false;
    for (const char byte : character) ids.push_back(id_of(byte));
    return true;
}

void Bpe::append_unknown(std::size_t word_begin, std::vector<int>& ids) const {
    if (!options_.unk_id) return;
    const bool follows_unknown = ids.size() > word_begin && ids.back() == *options_.unk_id;
    if (!follows_unknown || !options_.fuse_unk) ids.push_back(*options_.unk_id);
}

}  // namespace mha2mla::tokenizer
