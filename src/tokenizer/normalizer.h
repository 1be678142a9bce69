#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace mha2mla::tokenizer {

/// What a tokenizer does to text before it looks for words: the "normalizer" of a tokenizer.json.
class Normalizer {
public:
    Normalizer() = default;
    /// Reads null, Prepend, Replace (of a string), NFC, or a Sequence of these. Throws Error naming any other.
    static Normalizer from_json(const core::Json& json, const std::string& where);

    bool is_identity() const { return steps_.empty(); }
    /// The normalized form of valid UTF-8 text. Throws Error where it would grow beyond all reason.
    std::string apply(std::string_view text) const;

private:
    enum class Kind { prepend, replace, nfc };
    struct Step {
        Kind kind;
        std::string pattern;  // of replace
        std::string content;  // of prepend and replace
    };

    void read(const core::Json& json, const std::string& where);

    std::vector<Step> steps_;
    std::string where_;
};

}  // namespace mha2mla::tokenizer
