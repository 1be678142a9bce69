#include "checkpoint/tensor_check.h"

#include <fmt/format.h>
#include <set>

#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

/// Old exporters stored the rotary frequencies, or the tied output matrix a second time.
bool is_redundant(const ModelConfig& config, const std::string& name) {
    return name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
}

[[noreturn]] void refuse(const ModelConfig& config, const std::string& name, const std::string& where) {
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
