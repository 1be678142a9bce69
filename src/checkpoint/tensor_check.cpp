#include "checkpoint/tensor_check.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <set>

#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

/// Old exporters stored the rotary frequencies, or the tied output matrix a second time.
bool is_redundant(const ModelConfig& config, const std::string& name) {
    return name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
}

/// The optional tensors of MLA format 1.
bool is_optional_part(const std::string& name) {
    constexpr std::array suffixes{".self_attn.q_nope_factor", ".self_attn.q_rope_factor", ".self_attn.k_mean",
                                  ".self_attn.k_proj.weight", ".self_attn.k_proj.bias",   ".self_attn.v_proj.weight",
                                  ".self_attn.v_proj.bias"};
    return std::any_of(suffixes.begin(), suffixes.end(), [&](const char* suffix) { return name.ends_with(suffix); });
}

[[noreturn]] void refuse(const ModelConfig& config, const std::string& name, const std::string& where) {
    if (config.is_mla() && is_optional_part(name)) {
        throw core::Error(
            {.what = fmt::format("tensor '{}' is a part of format 1 that this version does not run", name),
             .where = where,
             .remedy = "use a newer version, or convert the source model again with this one"});
    }
    throw core::Error({.what = fmt::format("tensor '{}' has no place in a model of type '{}' with this config.json",
                                           name, config.model_type),
                       .where = where});
}

}  // namespace

void check_tensor(const TensorSpec& expected, const TensorSource& tensors, const std::string& where) {
    const auto shape = tensors.shape_of(expected.name);
    if (!shape) {
        throw core::Error({.what = fmt::format("tensor '{}' is missing", expected.name),
                           .expected = "shape " + to_string(expected.shape),
                           .where = where,
                           .remedy = "the checkpoint is incomplete or belongs to another config.json"});
    }
    if (*shape == expected.shape) return;
    throw core::Error({.what = fmt::format("tensor '{}' has the wrong shape", expected.name),
                       .expected = to_string(expected.shape),
                       .got = to_string(*shape),
                       .where = where});
}

void check_tensors(const ModelConfig& config, const TensorSource& tensors, const std::string& where) {
    std::set<std::string> known;
    const auto expected = expected_tensors(config);
    for (const auto& spec : expected) known.insert(spec.name);
    for (const auto& spec : tensors.list()) {
        if (!known.contains(spec.name) && !is_redundant(config, spec.name)) refuse(config, spec.name, where);
    }
    for (const auto& spec : expected) check_tensor(spec, tensors, where);
}

}  // namespace mha2mla::checkpoint
