#include "tokenizer/tokenizer.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/utf8.h"
#include "tokenizer/hf_tokenizer.h"
#include "tokenizer/sentencepiece_tokenizer.h"

namespace mha2mla::tokenizer {
namespace {

constexpr std::size_t max_text_bytes = std::size_t{1} << 30;

std::unique_ptr<Tokenizer> make_hf_tokenizer(std::string_view bytes, const SpecialRules& rules,
                                             const std::string& where) {
    auto parts = read_tokenizer_json(bytes, where);
    const auto id_of = [&](std::string_view token) {
        const auto added = parts.added_vocabulary.id_of(token);
        return added ? added : parts.bpe.vocabulary().id_of(token);
    };
    parts.special_ids = apply_rules(std::move(parts.special_ids), rules, id_of, where);
    return std::make_unique<HfTokenizer>(std::move(parts));
}

}  // namespace

std::vector<int> Tokenizer::encode(std::string_view text, bool add_special, bool parse_special) const {
    if (text.size() > max_text_bytes) {
        throw core::Error({.what = "the text is too long to tokenize at once",
                           .expected = fmt::format("at most {} bytes", max_text_bytes),
                           .got = fmt::format("{} bytes", text.size()),
                           .remedy = "split it into documents"});
    }
    std::vector<int> ids;
    if (core::valid_utf8_prefix(text) == text.size()) {
        append_ids(text, parse_special, ids);
    } else {
        append_ids(core::replace_invalid_utf8(text), parse_special, ids);
    }
    return add_special ? add_special_ids(std::move(ids)) : ids;
}

std::string Tokenizer::decode(std::span<const int> ids, bool special) const {
    Detokenizer detokenizer(*this, special);
    std::string text;
    for (const int id : ids) text += detokenizer.push(id);
    return text + detokenizer.finish();
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::map<std::string, std::string>& files, const std::string& where) {
    const auto config = files.find("tokenizer_config.json");
    const auto rules =
        config == files.end() ? SpecialRules() : read_special_rules(config->second, where + ", tokenizer_config.json");
    const auto json = files.find("tokenizer.json");
    if (json != files.end()) return make_hf_tokenizer(json->second, rules, where + ", tokenizer.json");
    const auto model = files.find("tokenizer.model");
    if (model != files.end()) return make_sentencepiece_tokenizer(model->second, rules, where + ", tokenizer.model");
    throw core::Error({.what = "the model has no tokenizer",
                       .expected = "tokenizer.json or tokenizer.model",
                       .where = where,
                       .remedy = "copy the tokenizer files of the source model beside its weights"});
}

std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view bytes, const std::string& where) {
    return make_hf_tokenizer(bytes, {}, where);
}

std::unique_ptr<Tokenizer> tokenizer_from_sentencepiece(std::string_view bytes, const std::string& where) {
    return make_sentencepiece_tokenizer(bytes, {}, where);
}

}  // namespace mha2mla::tokenizer
