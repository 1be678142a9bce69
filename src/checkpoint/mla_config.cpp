#include "checkpoint/mla_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <set>

#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

constexpr int format_version = 1;
constexpr std::int64_t max_kv_lora_rank = std::int64_t{1} << 16;
constexpr std::int64_t max_sink_tokens = 64;

[[noreturn]] void refuse(const core::JsonObject& mla, const std::string& part) {
    throw core::Error({.what = part + " is a part of format 1 that this version does not run",
                       .where = mla.where(),
                       .remedy = "use a newer version, or convert the source model again with this one"});
}

void check_fields(const core::Json& object, const core::JsonObject& mla) {
    constexpr std::array known{"format",       "kv_lora_rank",    "qk_rope_head_dim",   "qk_nope_head_dim",
                               "v_head_dim",   "rope_pairs",      "num_rope_key_heads", "nope_pairs",
                               "sink_tokens",  "positional_part", "softmax_scale",      "source_model_type",
                               "latent_groups"};
    for (const auto& [key, value] : object.items()) {
        if (std::find(known.begin(), known.end(), key) == known.end()) {
            throw core::Error({.what = fmt::format("unknown field '{}'", key), .where = mla.where()});
        }
    }
}

/// One integer per layer.
std::vector<int> read_per_layer(const core::JsonObject& mla, const char* key, std::int64_t min, std::int64_t max,
                                int layers) {
    const auto values = mla.integers(key, min, max);
    if (values.size() != static_cast<std::size_t>(layers)) {
        throw core::Error({.what = fmt::format("field '{}' has the wrong length", key),
                           .expected = fmt::format("{} (num_hidden_layers)", layers),
                           .got = fmt::to_string(values.size()),
                           .where = mla.where()});
    }
    return {values.begin(), values.end()};
}

int read_rope_key_heads(const core::JsonObject& mla, const ModelConfig& config) {
    const auto heads = static_cast<int>(mla.integer("num_rope_key_heads", 1, config.num_attention_heads));
    const int kv_heads = config.num_key_value_heads;
    if (heads != 1 && heads != kv_heads) {
        refuse(mla, fmt::format("num_rope_key_heads {} (neither 1 nor num_key_value_heads {})", heads, kv_heads));
    }
    return heads;
}

/// Groups of KV heads with a part of the latent and rotary keys of their own; 1 where the field is absent.
int read_latent_groups(const core::JsonObject& object, const MlaConfig& mla, const ModelConfig& config) {
    if (!object.has("latent_groups")) return 1;
    const int kv_heads = config.num_key_value_heads;
    const auto groups = static_cast<int>(object.integer("latent_groups", 1, kv_heads));
    if (kv_heads % groups != 0) {
        object.fail("latent_groups", fmt::format("a divisor of num_key_value_heads ({})", kv_heads));
    }
    if (groups > 1 && mla.num_rope_key_heads != kv_heads) {
        object.fail("latent_groups", "1 where the heads share one rotary key (num_rope_key_heads 1)");
    }
    for (const int rank : mla.kv_lora_rank) {
        if (rank % groups == 0) continue;
        object.fail("latent_groups", fmt::format("a divisor of every kv_lora_rank, {} among them", rank));
    }
    return groups;
}

/// The pairs of one rotary key head: dr/2 indices.
std::vector<int> read_pairs(const core::Json& head, const core::JsonObject& mla, int count, int pairs) {
    const auto valid = [pairs](const core::Json& pair) {
        return pair.is_number_integer() && pair.get<std::int64_t>() >= 0 && pair.get<std::int64_t>() < pairs;
    };
    if (!head.is_array() || head.size() != static_cast<std::size_t>(count) ||
        !std::all_of(head.begin(), head.end(), valid)) {
        throw core::Error({.what = "field 'rope_pairs' is not usable",
                           .expected = fmt::format("{} integers from 0 to {} for each rotary key head (qk_rope_head_dim"
                                                   " / 2 of the layer)",
                                                   count, pairs - 1),
                           .where = mla.where()});
    }
    return head.get<std::vector<int>>();
}

std::vector<std::vector<std::vector<int>>> read_rope_pairs(const core::JsonObject& object, const MlaConfig& mla,
                                                           int pairs) {
    const auto& layers = object.raw("rope_pairs");
    if (!layers.is_array() || layers.size() != mla.qk_rope_head_dim.size()) {
        object.fail("rope_pairs", "one list per layer");
    }
    std::vector<std::vector<std::vector<int>>> result(layers.size());
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        const auto& heads = layers[layer];
        if (!heads.is_array() || heads.size() != static_cast<std::size_t>(mla.num_rope_key_heads)) {
            object.fail("rope_pairs",
                        fmt::format("{} lists in each layer, one per rotary key head (num_rope_key_heads)",
                                    mla.num_rope_key_heads));
        }
        const int count = mla.qk_rope_head_dim[layer] / 2;
        for (const auto& head : heads) result[layer].push_back(read_pairs(head, object, count, pairs));
    }
    return result;
}

NopePairs read_nope_pairs(const core::JsonObject& mla) {
    const auto name = mla.string("nope_pairs");
    if (name == "all") return NopePairs::all;
    if (name != "unrotated") mla.fail("nope_pairs", "\"all\" or \"unrotated\"");
    return NopePairs::unrotated;
}

bool has_repeats(const std::vector<int>& pairs) {
    return std::set<int>(pairs.begin(), pairs.end()).size() != pairs.size();
}

/// dn = d for "all"; dn = d - dr, and no pair rotated twice, for "unrotated".
void check_widths(const core::JsonObject& object, const MlaConfig& mla, int head_dim) {
    for (std::size_t layer = 0; layer < mla.qk_rope_head_dim.size(); ++layer) {
        if (mla.qk_rope_head_dim[layer] % 2 != 0) object.fail("qk_rope_head_dim", "even numbers");
        const bool all = mla.nope_pairs == NopePairs::all;
        const int expected = all ? head_dim : head_dim - mla.qk_rope_head_dim[layer];
        if (mla.qk_nope_head_dim[layer] != expected) {
            object.fail("qk_nope_head_dim",
                        fmt::format("{} in layer {}, which nope_pairs and qk_rope_head_dim imply", expected, layer));
        }
        const auto& heads = mla.rope_pairs[layer];
        if (!all && std::any_of(heads.begin(), heads.end(), has_repeats)) {
            object.fail("rope_pairs", "no pair twice in a head where nope_pairs is \"unrotated\"");
        }
    }
}

double read_softmax_scale(const core::JsonObject& mla, int head_dim) {
    const double scale = mla.number("softmax_scale");
    const double expected = 1 / std::sqrt(head_dim);
    if (std::abs(scale - expected) > 1e-6 * expected) {
        mla.fail("softmax_scale", fmt::format("1/sqrt(head_dim) = {}", expected));
    }
    return scale;
}

/// A key constant that is dropped cancels among the keys that drop it, not between them and exact sinks.
void check_sinks(const core::JsonObject& object, const MlaConfig& mla, const ModelConfig& config) {
    if (mla.sink_tokens == 0) return;
    if (!mla.positional_part) object.fail("sink_tokens", "0 where positional_part is false");
    if (!config.attention_bias) object.fail("sink_tokens", "0 where attention_bias is false: v_proj.bias joins them");
}

std::string read_source_type(const core::JsonObject& mla) {
    auto type = mla.string("source_model_type");
    if (type != "llama" && type != "mistral") mla.fail("source_model_type", "\"llama\" or \"mistral\"");
    return type;
}

}  // namespace

MlaConfig parse_mla(const core::JsonObject& fields, const ModelConfig& config) {
    const auto object = fields.object("mla");
    if (object.integer("format", 0, INT64_MAX) != format_version) object.fail("format", "1");
    check_fields(fields.raw("mla"), object);
    if (fields.has("auto_map")) fields.fail("auto_map", "none: this version reads no modelling file");
    const int layers = config.num_hidden_layers;
    const int head_dim = config.head_dim;
    MlaConfig mla;
    mla.num_rope_key_heads = read_rope_key_heads(object, config);
    mla.kv_lora_rank = read_per_layer(object, "kv_lora_rank", 1, max_kv_lora_rank, layers);
    mla.latent_groups = read_latent_groups(object, mla, config);
    const std::int64_t max_rope = std::int64_t{head_dim} * config.num_key_value_heads;
    mla.qk_rope_head_dim = read_per_layer(object, "qk_rope_head_dim", 0, max_rope, layers);
    mla.qk_nope_head_dim = read_per_layer(object, "qk_nope_head_dim", 0, head_dim, layers);
    mla.v_head_dim = static_cast<int>(object.integer("v_head_dim", 1, head_dim));
    if (mla.v_head_dim != head_dim) object.fail("v_head_dim", fmt::format("head_dim ({})", head_dim));
    mla.nope_pairs = read_nope_pairs(object);
    mla.rope_pairs = read_rope_pairs(object, mla, config.rope_pairs());
    check_widths(object, mla, head_dim);
    mla.positional_part = object.boolean("positional_part");
    mla.sink_tokens = static_cast<int>(object.integer("sink_tokens", 0, max_sink_tokens));
    check_sinks(object, mla, config);
    mla.softmax_scale = read_softmax_scale(object, head_dim);
    mla.source_model_type = read_source_type(object);
    return mla;
}

core::OrderedJson mla_to_json(const MlaConfig& mla) {
    core::OrderedJson json;
    json["format"] = format_version;
    json["kv_lora_rank"] = mla.kv_lora_rank;
    json["qk_rope_head_dim"] = mla.qk_rope_head_dim;
    json["qk_nope_head_dim"] = mla.qk_nope_head_dim;
    json["v_head_dim"] = mla.v_head_dim;
    json["num_rope_key_heads"] = mla.num_rope_key_heads;
    if (mla.latent_groups > 1) json["latent_groups"] = mla.latent_groups;
    json["rope_pairs"] = mla.rope_pairs;
    json["nope_pairs"] = mla.nope_pairs == NopePairs::all ? "all" : "unrotated";
    json["positional_part"] = mla.positional_part;
    json["sink_tokens"] = mla.sink_tokens;
    json["softmax_scale"] = mla.softmax_scale;
    json["source_model_type"] = mla.source_model_type;
    return json;
}

}  // namespace mha2mla::checkpoint
