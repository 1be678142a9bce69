#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace mha2mla::tokenizer {

/// What a model wants around every text: its BOS and EOS tokens.
struct SpecialIds {
    std::vector<int> prefix = {};
    std::vector<int> suffix = {};

    std::vector<int> around(std::vector<int> ids) const;
};

/// Reads the "post_processor" of a tokenizer.json: null, ByteLevel, TemplateProcessing, or a Sequence of these. Throws
/// Error naming any other, and for ids that are not below `id_limit`.
SpecialIds read_post_processor(const core::Json& json, int id_limit, const std::string& where);

/// The settings of a tokenizer_config.json that decide about BOS and EOS; empty where it is silent.
struct SpecialRules {
    std::optional<bool> add_bos = {};
    std::optional<bool> add_eos = {};
    std::optional<std::string> bos_token = {};
    std::optional<std::string> eos_token = {};
};

SpecialRules read_special_rules(std::string_view tokenizer_config, const std::string& where);

/// The ids under the rules: add_bos_token and add_eos_token overrule the tokenizer's own template. Throws Error where a
/// token that is to be added is not in the vocabulary.
SpecialIds apply_rules(SpecialIds ids, const SpecialRules& rules,
                       const std::function<std::optional<int>(std::string_view)>& id_of, const std::string& where);

}  // namespace mha2mla::tokenizer
