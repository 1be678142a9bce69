#include <fmt/format.h>

#include "core/error.h"
#include "tokenizer/bpe.h"

namespace mha2mla::tokenizer {
namespace {

constexpr std::size_t max_merges = 1 << 22;

Vocabulary read_vocabulary(const core::JsonObject& model) {
    Vocabulary vocabulary;
    const auto& tokens = model.raw("vocab");
    if (!tokens.is_object()) model.fail("vocab", "an object of tokens and their ids");
    for (const auto& [token, id] : tokens.items()) {
        if (!id.is_number_integer()) {
            throw core::Error(
                {.what = fmt::format("the id of token '{}' is no integer", token), .where = model.where()});
        }
        // Ids above the signed range turn negative here, and those are refused.
        vocabulary.add(token, id.get<std::int64_t>(), model.where());
    }
    return vocabulary;
}

struct Pair {
    std::string left;
    std::string right;
};

/// "a b", or ["a", "b"] in newer files.
Pair read_pair(const core::Json& merge, const std::string& where) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        return {merge[0].get<std::string>(), merge[1].get<std::string>()};
    }
    if (merge.is_string()) {
        const auto text = merge.get<std::string>();
        const auto space = text.find(' ');
        if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
            return {text.substr(0, space), text.substr(space + 1)};
        }
    }
    throw core::Error({.what = "a merge is not two tokens",
                       .expected = R"("a b" or ["a", "b"])",
                       .got = merge.dump(-1, ' ', false, core::Json::error_handler_t::replace).substr(0, 80),
                       .where = where});
}

int id_of(const std::string& token, const Vocabulary& vocabulary, const std::string& where) {
    if (const auto id = vocabulary.id_of(token)) return *id;
    throw core::Error(
        {.what = fmt::format("a merge refers to '{}', which is not in the vocabulary", token), .where = where});
}

MergeTable read_merges(const core::JsonObject& model, const Vocabulary& vocabulary) {
    const auto& merges = model.raw("merges");
    if (!merges.is_array() || merges.size() > max_merges) model.fail("merges", "an array of at most 4,194,304 pairs");
    MergeTable table(merges.size());
    std::uint32_t rank = 0;
    for (const auto& merge : merges) {
        const auto [left, right] = read_pair(merge, model.where());
        const int merged = id_of(left + right, vocabulary, model.where());
        table.add(id_of(left, vocabulary, model.where()), id_of(right, vocabulary, model.where()), {rank++, merged});
    }
    return table;
}

std::optional<int> read_unknown(const core::JsonObject& model, const Vocabulary& vocabulary) {
    if (!model.has("unk_token")) return std::nullopt;
    const auto id = vocabulary.id_of(model.string("unk_token"));
    if (!id) model.fail("unk_token", "a token of the vocabulary");
    return id;
}

void refuse_variants(const core::JsonObject& model) {
    if (model.string_or("type", "BPE") != "BPE") model.fail("type", "BPE (others are not supported)");
    if (model.number_or("dropout", 0) != 0) model.fail("dropout", "none");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
        if (!model.string_or(key, "").empty()) model.fail(key, "none");
    }
}

}  // namespace

Bpe read_bpe(const core::JsonObject& model, bool byte_level) {
    refuse_variants(model);
    auto vocabulary = read_vocabulary(model);
    auto merges = read_merges(model, vocabulary);
    const BpeOptions options{.byte_level = byte_level,
                             .byte_fallback = !byte_level && model.boolean_or("byte_fallback", false),
                             .ignore_merges = model.boolean_or("ignore_merges", false),
                             .fuse_unk = model.boolean_or("fuse_unk", false),
                             .unk_id = read_unknown(model, vocabulary)};
    return {std::move(vocabulary), std::move(merges), options};
}

}  // namespace mha2mla::tokenizer
