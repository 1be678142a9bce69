#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "convert/sizes.h"
#include "convert/transmla_method.h"
#include "convert/transmla_parts.h"

namespace mha2mla::convert {
namespace {

using checkpoint::ModelConfig;

/// Every frequency takes part alike, so the components are a share of the pairs or whole turns of them.
void check_components(const ModelConfig& source, int components) {
    const int pairs = source.rope_pairs();
    const int all = source.num_key_value_heads * pairs;
    const bool fits = components >= 1 && components <= all && (pairs % components == 0 || components % pairs == 0);
    if (fits) return;
    reject("--rope-components", "the number of rotary components is not usable",
           fmt::format("a divisor of {0}, the pairs of a head, or a multiple of {0} up to {1}", pairs, all),
           std::to_string(components));
}

void check_freqfold(const ModelConfig& source, const TransmlaOptions& options) {
    if (!options.freqfold) return;
    const int pairs = source.rope_pairs();
    const int step = frequency_step(pairs, *options.rope_components);
    const int fold = *options.freqfold;
    if (fold >= 1 && pairs % fold == 0 && fold % step == 0) return;
    reject("--freqfold", "the number of frequencies to fold is not usable",
           fmt::format("auto, or a divisor of {}, the pairs of a head, and a multiple of {} with {} rotary components",
                       pairs, step, *options.rope_components),
           std::to_string(fold));
}

void check_balance(double balance) {
    if (balance > 0 && std::isfinite(balance)) return;
    reject("--balance-kv", "the ratio of keys to values is out of range", "above 0", fmt::format("{}", balance));
}

/// Rotary components where the user names none: a head's pairs, halved until the rotary key takes no more than 4 / 9
/// of the cache (with --kv-rank: of the latent), which measured best on SmolLM2-135M (docs/results).
int default_components(const ModelConfig& source, const ConversionOptions& options) {
    const int elements =
        options.kv_rank ? *options.kv_rank * source.num_key_value_heads : cached_elements(source, options, 1);
    int components = source.rope_pairs();
    while (components % 2 == 0 && 9 * components > 2 * elements) components /= 2;
    return components;
}

}  // namespace

core::OrderedJson options_of_transmla(const ConversionOptions& options) {
    const auto& transmla = options.transmla;
    core::OrderedJson json{{"rope_components", *transmla.rope_components}, {"balance_kv", transmla.balance_kv}};
    json["freqfold"] = transmla.freqfold ? core::OrderedJson(*transmla.freqfold) : core::OrderedJson("auto");
    return json;
}

bool transmla_leaves_choices(const Plan& plan) { return !plan.options.transmla.freqfold; }

std::vector<Alternative> alternatives_of_transmla(const Plan& plan, const Evidence&, core::Progress&,
                                                  const std::stop_token&) {
    if (plan.options.transmla.freqfold) return {{"the freqfold of the options", plan}};
    const int pairs = plan.source.rope_pairs();
    std::vector<Alternative> alternatives;
    for (int fold = frequency_step(pairs, *plan.options.transmla.rope_components); fold <= pairs; fold *= 2) {
        if (pairs % fold != 0) continue;
        alternatives.push_back({fmt::format("freqfold {}", fold), plan});
        alternatives.back().plan.options.transmla.freqfold = fold;
    }
    return alternatives;
}

void lay_out_transmla(Plan& plan) {
    const auto& source = plan.source;
    auto& transmla = plan.options.transmla;
    if (!transmla.rope_components) transmla.rope_components = default_components(source, plan.options);
    const int components = *transmla.rope_components;
    check_components(source, components);
    check_freqfold(source, transmla);
    check_balance(transmla.balance_kv);
    const auto layers = static_cast<std::size_t>(source.num_hidden_layers);
    checkpoint::MlaConfig mla;
    mla.kv_lora_rank.assign(layers, resolve_rank(source, plan.options, cached_elements(source, plan.options, 1),
                                                 components, source_elements(source) - 2 * components));
    mla.qk_rope_head_dim.assign(layers, 2 * components);
    mla.qk_nope_head_dim.assign(layers, source.head_dim);
    mla.v_head_dim = source.head_dim;
    mla.num_rope_key_heads = 1;
    mla.rope_pairs.assign(layers, {folded_pairs(source.rope_pairs(), components)});
    mla.nope_pairs = checkpoint::NopePairs::all;
    mla.q_rope_proj = true;
    mla.softmax_scale = 1 / std::sqrt(static_cast<double>(source.head_dim));
    mla.source_model_type = source.model_type;
    plan.target.attention = std::move(mla);
}

}  // namespace mha2mla::convert
