#include "tokenizer/normalizer.h"

#include <fmt/format.h>

#include "core/error.h"
#include "tokenizer/nfc.h"
#include "tokenizer/replace_all.h"

namespace mha2mla::tokenizer {
namespace {

constexpr std::size_t max_content_bytes = 64;
/// A space becomes three bytes (U+2581) in published files; more than this is an attack.
constexpr std::size_t max_growth = 16;

std::string short_content(const core::JsonObject& step, const char* key) {
    const auto content = step.string(key);
    if (content.size() > max_content_bytes) step.fail(key, fmt::format("at most {} bytes", max_content_bytes));
    return content;
}

}  // namespace

Normalizer Normalizer::from_json(const core::Json& json, const std::string& where) {
    Normalizer normalizer;
    normalizer.where_ = where;
    normalizer.read(json, where);
    return normalizer;
}

void Normalizer::read(const core::Json& json, const std::string& where) {
    if (json.is_null()) return;
    const core::JsonObject step(json, where + ", normalizer");
    const auto type = step.string("type");
    if (type == "Sequence") {
        if (!step.raw("normalizers").is_array()) step.fail("normalizers", "an array");
        for (const auto& part : step.raw("normalizers")) read(part, where);
    } else if (type == "Prepend") {
        steps_.push_back({Kind::prepend, "", short_content(step, "prepend")});
    } else if (type == "Replace") {
        const auto pattern = step.object("pattern").string("String");
        if (pattern.empty()) step.fail("pattern", "a string that is not empty");
        steps_.push_back({Kind::replace, pattern, short_content(step, "content")});
    } else if (type == "NFC") {
        steps_.push_back({Kind::nfc, "", ""});
    } else {
        step.fail("type", "Prepend, Replace, NFC or Sequence (other normalizers are not supported)");
    }
}

std::string Normalizer::apply(std::string_view text) const {
    std::string result(text);
    for (const auto& step : steps_) {
        if (result.empty()) break;
        if (step.kind == Kind::prepend) result.insert(0, step.content);
        if (step.kind == Kind::replace) result = replace_all(result, step.pattern, step.content);
        if (step.kind == Kind::nfc) result = to_nfc(result);
        if (result.size() > max_growth * text.size() + 1024) {
            throw core::Error({.what = "the normalizer lets the text grow beyond reason", .where = where_});
        }
    }
    return result;
}

}  // namespace mha2mla::tokenizer
