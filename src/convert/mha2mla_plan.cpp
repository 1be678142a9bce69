#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fmt/format.h>
#include <utility>

#include "checkpoint/rank_table.h"
#include "convert/mha2mla_method.h"
#include "convert/select.h"
#include "core/error.h"

namespace mha2mla::convert {
namespace {

using checkpoint::ModelConfig;

/// Un-rotated key rows, value rows and what they can carry at most.
struct Widths {
    int key_rows = 0;
    int value_rows = 0;
    int key_rank = 0;  // the largest useful rank of each part, and of both together
    int value_rank = 0;
    int joint_rank = 0;
};

Widths widths_of(const ModelConfig& source, int rope_pairs) {
    const int key_rows = source.num_key_value_heads * (source.head_dim - 2 * rope_pairs);
    const int value_rows = source.num_key_value_heads * source.head_dim;
    return {.key_rows = key_rows,
            .value_rows = value_rows,
            .key_rank = std::min(source.hidden_size, key_rows),
            .value_rank = std::min(source.hidden_size, value_rows),
            .joint_rank = std::min(source.hidden_size, key_rows + value_rows)};
}

int largest_kv_rank(const ModelConfig& source, const ConversionOptions& options) {
    const Widths widths = widths_of(source, *options.rope_pairs);
    const int heads = source.num_key_value_heads;
    if (options.factorization == Factorization::joint_svd) return widths.joint_rank / heads;
    if (options.split_full_rank) return std::max(widths.key_rank, widths.value_rank) / heads;
    return (widths.key_rank + widths.value_rank) / heads;
}

void check_combination(const ConversionOptions& options) {
    const bool sized = options.kv_rank || options.cache_ratio;
    if (options.kv_rank && options.cache_ratio) {
        reject("--kv-rank, --cache-ratio", "both options set the latent's width", "one of them", "both");
    }
    if (options.factorization == Factorization::none && sized) {
        reject("--factor", "'none' keeps keys and values exactly, so the latent's width cannot be chosen",
               "--factor joint-svd or split-svd, or neither --kv-rank nor --cache-ratio", "none");
    }
    if (options.split_full_rank && options.factorization != Factorization::split_svd) {
        reject("--split-full-rank", "the option changes split SVD only", "--factor split-svd",
               std::string(name_of(options.factorization)));
    }
    if ((options.selection == Selection::table) == options.rank_table.empty()) {
        reject("--select", "a rank table belongs to the selection 'table'", "--select table FILE.pth",
               std::string(name_of(options.selection)));
    }
}

void check_latent_groups(const ModelConfig& source, int groups) {
    if (groups >= 1 && source.num_key_value_heads % groups == 0) return;
    reject("--latent-groups", "groups must have equally many key/value heads",
           fmt::format("a divisor of {}, the model's key/value heads", source.num_key_value_heads),
           std::to_string(groups));
}

int resolve_rope_pairs(const ModelConfig& source, const ConversionOptions& options) {
    const int all = source.rope_pairs();
    const int chosen = options.rope_pairs.value_or(std::max(1, source.head_dim / 16));
    if (chosen < 1 || chosen > all) {
        reject("--rope-pairs", "the number of rotary pairs is out of range", fmt::format("1..{}", all),
               std::to_string(chosen));
    }
    if (options.selection == Selection::uniform && all % chosen != 0) {
        reject("--rope-pairs", "uniform selection needs equal steps",
               fmt::format("a divisor of {}, the pairs of a head", all), std::to_string(chosen));
    }
    return chosen;
}

/// d_kv from the cache's share: G (2r + n d_kv) / (2 G d), where a full-rank split stores n = 2 latents.
int kv_rank_for_ratio(const ModelConfig& source, const ConversionOptions& options, int largest) {
    const double ratio = *options.cache_ratio;
    const double before = 2.0 * source.head_dim;
    const double rope = 2.0 * *options.rope_pairs;
    const double latents = options.split_full_rank ? 2 : 1;
    const double lowest = (rope + latents) / before;
    const double highest = (rope + latents * largest) / before;
    // Half a thousandth of slack: a ratio copied from a rounded message is still in range.
    if (!(ratio >= lowest - 5e-4 && ratio <= highest + 5e-4)) {
        reject("--cache-ratio", "the share of the cache is out of range",
               fmt::format("{:.4f}..{:.4f} with {} rotary pairs", lowest, highest, *options.rope_pairs),
               fmt::format("{}", ratio));
    }
    return std::clamp(static_cast<int>(std::floor((ratio * before - rope) / latents + 1e-6)), 1, largest);
}

std::optional<int> resolve_kv_rank(const ModelConfig& source, const ConversionOptions& options) {
    if (options.factorization == Factorization::none) return std::nullopt;
    const int largest = largest_kv_rank(latent_group_of(source, options), options);
    if (options.cache_ratio) return kv_rank_for_ratio(source, options, largest);
    const int chosen = options.kv_rank.value_or(std::min(source.head_dim / 2, largest));
    if (chosen < 1 || chosen > largest) {
        reject("--kv-rank", "the latent width per KV head is out of range",
               fmt::format("1..{} for this model with {} rotary pairs", largest, *options.rope_pairs),
               std::to_string(chosen));
    }
    return chosen;
}

/// Of one latent group.
int head_rank(const ModelConfig& group, const ConversionOptions& options) {
    const Widths widths = widths_of(group, *options.rope_pairs);
    switch (options.factorization) {
        case Factorization::none: return widths.key_rows + widths.value_rows;
        case Factorization::joint_svd: return *options.kv_rank * group.num_key_value_heads;
        case Factorization::split_svd: break;
    }
    const LatentSplit split = split_latent(group, options);
    return split.keys + split.values;
}

std::vector<HeadPairs> planned_pairs(const ModelConfig& source, const ConversionOptions& options) {
    const auto layers = static_cast<std::size_t>(source.num_hidden_layers);
    if (options.selection == Selection::two_norm) return std::vector<HeadPairs>(layers);
    if (options.selection == Selection::table) {
        return select_by_table(checkpoint::read_rank_table(options.rank_table), source, *options.rope_pairs);
    }
    const HeadPairs every_head(static_cast<std::size_t>(source.num_key_value_heads),
                               select_by_rule(options.selection, source.rope_pairs(), *options.rope_pairs));
    return std::vector<HeadPairs>(layers, every_head);
}

checkpoint::MlaConfig lay_out(const ModelConfig& source, const ConversionOptions& options) {
    const auto layers = static_cast<std::size_t>(source.num_hidden_layers);
    const int rope_width = 2 * *options.rope_pairs;
    checkpoint::MlaConfig mla;
    mla.latent_groups = options.latent_groups;
    mla.kv_lora_rank.assign(layers, mla.latent_groups * head_rank(latent_group_of(source, options), options));
    mla.qk_rope_head_dim.assign(layers, rope_width);
    mla.qk_nope_head_dim.assign(layers, source.head_dim - rope_width);
    mla.v_head_dim = source.head_dim;
    mla.num_rope_key_heads = source.num_key_value_heads;
    mla.rope_pairs = planned_pairs(source, options);
    mla.softmax_scale = 1.0 / std::sqrt(static_cast<double>(source.head_dim));
    mla.source_model_type = source.model_type;
    return mla;
}

}  // namespace

ModelConfig latent_group_of(const ModelConfig& source, const ConversionOptions& options) {
    ModelConfig group = source;
    group.num_key_value_heads /= options.latent_groups;
    return group;
}

LatentSplit split_latent(const ModelConfig& source, const ConversionOptions& resolved) {
    const Widths widths = widths_of(source, *resolved.rope_pairs);
    const int rank = *resolved.kv_rank * source.num_key_value_heads;
    if (resolved.split_full_rank) {
        return {.keys = std::min(rank, widths.key_rank), .values = std::min(rank, widths.value_rank)};
    }
    const int values = std::min(rank - std::min(rank / 2, widths.key_rank), widths.value_rank);
    return {.keys = rank - values, .values = values};
}

core::OrderedJson options_of_mha2mla(const ConversionOptions& options) {
    core::OrderedJson json{{"select", name_of(options.selection)},
                           {"factor", name_of(options.factorization)},
                           {"rope_pairs", *options.rope_pairs}};
    json["kv_rank"] = options.kv_rank ? core::OrderedJson(*options.kv_rank) : core::OrderedJson(nullptr);
    json["split_full_rank"] = options.split_full_rank;
    json["latent_groups"] = options.latent_groups;
    if (!options.rank_table.empty()) json["rank_table"] = options.rank_table.filename().string();
    return json;
}

void lay_out_mha2mla(Plan& plan) {
    check_combination(plan.options);
    check_latent_groups(plan.source, plan.options.latent_groups);
    plan.options.rope_pairs = resolve_rope_pairs(plan.source, plan.options);
    plan.options.kv_rank = resolve_kv_rank(plan.source, plan.options);
    plan.target.attention = lay_out(plan.source, plan.options);
}

}  // namespace mha2mla::convert
