#include "convert/plan.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fmt/format.h>

#include "convert/method.h"
#include "core/error.h"

namespace mha2mla::convert {
namespace {

using checkpoint::ModelConfig;

double cached_elements(const ModelConfig& config) {
    double sum = 0;
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) sum += config.cached_elements(layer);
    return sum;
}

core::OrderedJson layer_to_json(const checkpoint::MlaConfig& mla, std::size_t layer) {
    core::OrderedJson json{{"kv_lora_rank", mla.kv_lora_rank[layer]},
                           {"qk_rope_head_dim", mla.qk_rope_head_dim[layer]},
                           {"qk_nope_head_dim", mla.qk_nope_head_dim[layer]},
                           {"cached_elements", mla.cached_elements(static_cast<int>(layer))}};
    const auto& pairs = mla.rope_pairs[layer];
    json["rope_pairs"] = pairs.empty() ? core::OrderedJson(nullptr) : core::OrderedJson(pairs);
    return json;
}

}  // namespace

std::string_view name_of(Selection selection) {
    switch (selection) {
        case Selection::high: return "high";
        case Selection::low: return "low";
        case Selection::uniform: return "uniform";
        case Selection::two_norm: return "2-norm";
        case Selection::table: return "table";
    }
    core::invariant(false, "every selection has a name");
    return {};
}

std::string_view name_of(Factorization factorization) {
    switch (factorization) {
        case Factorization::joint_svd: return "joint-svd";
        case Factorization::split_svd: return "split-svd";
        case Factorization::none: return "none";
    }
    core::invariant(false, "every factorization has a name");
    return {};
}

double Plan::cache_ratio() const { return cached_elements(target) / cached_elements(source); }

Plan make_plan(const ModelConfig& source, const ConversionOptions& options) {
    if (source.is_mla()) {
        throw core::Error({.what = "the model is already converted",
                           .expected = "a model with multi-head or grouped-query attention",
                           .got = "multi-head latent attention"});
    }
    constexpr int widest = 1 << 20;
    if (options.kv_rank && std::abs(std::int64_t{*options.kv_rank}) > widest) {
        reject("--kv-rank", "the latent width per KV head is out of range", fmt::format("1..{}", widest),
               std::to_string(*options.kv_rank));
    }
    Plan plan{.options = options, .source = source, .target = source};
    plan.target.model_type = "mha2mla";
    find_method(options.method).lay_out(plan);
    return plan;
}

void reject(const char* option, const std::string& what, const std::string& expected, const std::string& got) {
    throw core::Error({.what = what, .expected = expected, .got = got, .where = option});
}

void set_rope_pairs(Plan& plan, int layer, const std::vector<std::vector<int>>& pairs) {
    std::get<checkpoint::MlaConfig>(plan.target.attention).rope_pairs.at(static_cast<std::size_t>(layer)) = pairs;
}

core::OrderedJson plan_to_json(const Plan& plan) {
    const auto& options = plan.options;
    core::OrderedJson json{{"method", options.method}};
    json.update(find_method(options.method).options(options));
    json["latent_rotation"] = nullptr;
    if (options.latent_rotation) json["latent_rotation"] = {{"seed", *options.latent_rotation}};
    json["cache_ratio"] = plan.cache_ratio();
    json["cached_elements_per_token"] = {{"source", cached_elements(plan.source)},
                                         {"target", cached_elements(plan.target)}};
    auto& layers = json["layers"] = core::OrderedJson::array();
    const auto& mla = plan.target.mla();
    for (std::size_t layer = 0; layer < mla.kv_lora_rank.size(); ++layer) layers.push_back(layer_to_json(mla, layer));
    return json;
}

}  // namespace mha2mla::convert
