#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>

#include "convert/deepseek_shape.h"
#include "convert/lsq_method.h"
#include "convert/sizes.h"
#include "core/error.h"

namespace mha2mla::convert {
namespace {

using checkpoint::ModelConfig;

/// Rotary components of layers that are all alike, in shares of a head's pairs, by the share of the cache: what
/// measured best on SmolLM2-135M (docs/results). The less there is to cache, the more of it the latent deserves.
int default_components(const ModelConfig& source, const ConversionOptions& options) {
    const double ratio = options.kv_rank ? static_cast<double>(*options.kv_rank) / (2 * source.head_dim)
                                         : options.cache_ratio.value_or(default_cache_ratio);
    struct Step {
        double below;
        double share;
    };
    constexpr std::array steps{Step{0.25, 0}, Step{0.36, 1.0 / 32}, Step{0.46, 1.0 / 4}, Step{0.58, 1.0 / 2}};
    const auto* const step = std::find_if(steps.begin(), steps.end(), [&](const Step& s) { return ratio < s.below; });
    const double share = step == steps.end() ? 1 : step->share;
    return static_cast<int>(std::lround(share * source.rope_pairs()));
}

/// Sizes by layer come from the errors of weighted factors, and from a sum that is left to divide.
bool can_differ_by_layer(const ConversionOptions& options) {
    return options.lsq.weighted && !options.kv_rank && !options.lsq.deepseek_shape;
}

void check_deepseek_options(const ConversionOptions& options) {
    const auto& lsq = options.lsq;
    if (lsq.refit_output) {
        reject("--refit-output", "it writes a bias, which stock engines do not load", "--export-shape any", "deepseek");
    }
    if (!lsq.weighted) {
        reject("--metric", "rotary pairs are chosen by errors that plain metrics do not have",
               "weighted with --export-shape deepseek", "plain");
    }
    if (lsq.rope_components == 0) {
        reject("--rope-components", "engines of this shape need a rotary key", "1 or more", "0");
    }
    if (options.kv_rank && !lsq.rope_components) {
        reject("--kv-rank", "it fixes the latent and leaves the rotary key open, so the largest would always win",
               "--rope-components with it, or --cache-ratio", std::to_string(*options.kv_rank));
    }
}

void check_options(const ModelConfig& source, const ConversionOptions& options) {
    const auto& lsq = options.lsq;
    if (lsq.sinks < 0 || lsq.sinks > 64) {
        reject("--sinks", "the number of exact tokens is out of range", "0..64", std::to_string(lsq.sinks));
    }
    if (lsq.sinks > 0 && !lsq.mean_key) {
        reject("--sinks", "exact tokens need the positional part", "--sinks 0 with --no-mean-key",
               std::to_string(lsq.sinks));
    }
    if (lsq.by_layer.value_or(false) && !can_differ_by_layer(options)) {
        reject("--by-layer", "sizes are not left open", "no --kv-rank, --metric plain or --export-shape deepseek",
               "one");
    }
    if (lsq.deepseek_shape) check_deepseek_options(options);
    const int pairs = source.num_key_value_heads * source.rope_pairs();
    const int components = lsq.rope_components.value_or(0);
    if (components < 0 || components > pairs) {
        reject("--rope-components", "the number of rotary components is out of range", fmt::format("0..{}", pairs),
               std::to_string(components));
    }
}

}  // namespace

int lsq_rank(const ModelConfig& source, const ConversionOptions& options, int components) {
    constexpr double largest_ratio = 2;  // conversions that lose nothing are worth a look
    const int largest = std::min(source.hidden_size, source_elements(source));  // the rank of [W_k; W_v]
    return resolve_rank(source, options, cached_elements(source, options, largest_ratio), components, largest);
}

core::OrderedJson options_of_lsq(const ConversionOptions& options) {
    const auto& lsq = options.lsq;
    core::OrderedJson components = "auto";
    if (lsq.rope_components) components = *lsq.rope_components;
    return {{"rope_components", components},
            {"by_layer", *lsq.by_layer},
            {"compensate", lsq.compensate},
            {"shared_rope", lsq.shared_rope},
            {"mean_key", lsq.mean_key},
            {"metric", lsq.weighted ? "weighted" : "plain"},
            {"refit_output", lsq.refit_output},
            {"sinks", lsq.sinks},
            {"export_shape", lsq.deepseek_shape ? "deepseek" : "any"}};
}

void lay_out_lsq(Plan& plan) {
    const auto& source = plan.source;
    auto& lsq = plan.options.lsq;
    if (lsq.deepseek_shape) {
        lsq.mean_key = false;
        lsq.sinks = 0;
    }
    check_options(source, plan.options);
    if (!lsq.by_layer) lsq.by_layer = can_differ_by_layer(plan.options);
    const int components = lsq.rope_components.value_or(default_components(source, plan.options));
    if (!*lsq.by_layer && !lsq.deepseek_shape) lsq.rope_components = components;
    const auto layers = static_cast<std::size_t>(source.num_hidden_layers);
    checkpoint::MlaConfig mla;
    mla.kv_lora_rank.assign(layers, lsq_rank(source, plan.options, components));
    mla.qk_rope_head_dim.assign(layers, 2 * components);
    mla.qk_nope_head_dim.assign(layers, source.head_dim);
    mla.v_head_dim = source.head_dim;
    mla.num_rope_key_heads = 1;
    mla.rope_pairs.resize(layers);
    mla.nope_pairs = checkpoint::NopePairs::all;
    mla.positional_part = lsq.mean_key;
    mla.sink_tokens = lsq.sinks;
    mla.q_nope_factor = lsq.compensate;
    mla.q_rope_factor = components > 0;
    mla.softmax_scale = 1 / std::sqrt(static_cast<double>(source.head_dim));
    mla.source_model_type = source.model_type;
    plan.target.attention = std::move(mla);
    plan.target.attention_bias = true;  // the centred latent's constants
    if (lsq.deepseek_shape) restrict_to_deepseek_shape(plan);
}

}  // namespace mha2mla::convert
