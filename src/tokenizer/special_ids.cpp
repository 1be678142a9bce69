#include "tokenizer/special_ids.h"

#include <fmt/format.h>

#include "core/error.h"

namespace mha2mla::tokenizer {
namespace {

using IdOf = std::function<std::optional<int>(std::string_view)>;

constexpr std::size_t max_special_ids = 64;

std::vector<int> read_ids(const core::JsonObject& special, int id_limit) {
    const auto ids = special.integers("ids", 0, id_limit - 1);
    if (ids.size() > max_special_ids) special.fail("ids", fmt::format("at most {} ids", max_special_ids));
    return {ids.begin(), ids.end()};
}

void append(std::vector<int>& to, const std::vector<int>& ids, const core::JsonObject& rule) {
    to.insert(to.end(), ids.begin(), ids.end());
    if (to.size() > max_special_ids) rule.fail("single", fmt::format("at most {} ids", max_special_ids));
}

/// "single": special tokens, the text ("A"), special tokens.
SpecialIds read_template(const core::JsonObject& rule, int id_limit) {
    SpecialIds result;
    bool behind_text = false;
    if (!rule.raw("single").is_array()) rule.fail("single", "an array");
    for (const auto& item : rule.raw("single")) {
        const core::JsonObject part(item, rule.where() + ", 'single'");
        if (part.has("Sequence")) {
            if (behind_text) rule.fail("single", "the text once");
            behind_text = true;
            continue;
        }
        const auto name = part.object("SpecialToken").string("id");
        const auto ids = read_ids(rule.object("special_tokens").object(name.c_str()), id_limit);
        append(behind_text ? result.suffix : result.prefix, ids, rule);
    }
    if (!behind_text) rule.fail("single", "the text once");
    return result;
}

void merge(SpecialIds& into, const SpecialIds& other, const core::JsonObject& rule) {
    auto prefix = other.prefix;
    append(prefix, into.prefix, rule);
    into.prefix = std::move(prefix);
    append(into.suffix, other.suffix, rule);
}

std::optional<bool> optional_boolean(const core::JsonObject& config, const char* key) {
    return config.has(key) ? std::optional(config.boolean(key)) : std::nullopt;
}

/// A string, or an object that describes the token.
std::optional<std::string> token_string(const core::JsonObject& config, const char* key) {
    if (!config.has(key)) return std::nullopt;
    return config.raw(key).is_object() ? config.object(key).string("content") : config.string(key);
}

/// One end of the text: {} for false, the token for true, the template's ids where the setting is absent.
std::vector<int> ruled(std::vector<int> ids, std::optional<bool> add, const std::optional<std::string>& token,
                       const std::function<std::optional<int>()>& lookup, const std::string& where) {
    if (!add) return ids;
    if (!*add) return {};
    if (!token && !ids.empty()) return ids;
    const auto id = token ? lookup() : std::nullopt;
    if (id) return {*id};
    throw core::Error({.what = "the token that every text is to begin or end with is not in the vocabulary",
                       .got = token.value_or("none"),
                       .where = where,
                       .remedy = "mend bos_token and eos_token, or set add_bos_token and add_eos_token to false"});
}

}  // namespace

std::vector<int> SpecialIds::around(std::vector<int> ids) const {
    ids.insert(ids.begin(), prefix.begin(), prefix.end());
    ids.insert(ids.end(), suffix.begin(), suffix.end());
    return ids;
}

SpecialIds read_post_processor(const core::Json& json, int id_limit, const std::string& where) {
    SpecialIds result;
    if (json.is_null()) return result;
    const core::JsonObject rule(json, where + ", post_processor");
    const auto type = rule.string("type");
    if (type == "TemplateProcessing") return read_template(rule, id_limit);
    if (type == "Sequence") {
        if (!rule.raw("processors").is_array()) rule.fail("processors", "an array");
        for (const auto& part : rule.raw("processors")) merge(result, read_post_processor(part, id_limit, where), rule);
        return result;
    }
    if (type != "ByteLevel") rule.fail("type", "TemplateProcessing, ByteLevel or Sequence (others are not supported)");
    return result;
}

SpecialRules read_special_rules(std::string_view tokenizer_config, const std::string& where) {
    const auto json = core::parse_json(tokenizer_config, where);
    const core::JsonObject config(json, where);
    return {optional_boolean(config, "add_bos_token"), optional_boolean(config, "add_eos_token"),
            token_string(config, "bos_token"), token_string(config, "eos_token")};
}

SpecialIds apply_rules(SpecialIds ids, const SpecialRules& rules, const IdOf& id_of, const std::string& where) {
    const auto bos = [&] { return id_of(*rules.bos_token); };
    const auto eos = [&] { return id_of(*rules.eos_token); };
    return {ruled(std::move(ids.prefix), rules.add_bos, rules.bos_token, bos, where),
            ruled(std::move(ids.suffix), rules.add_eos, rules.eos_token, eos, where)};
}

}  // namespace mha2mla::tokenizer
