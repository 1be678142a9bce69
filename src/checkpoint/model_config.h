#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/json.h"

namespace mha2mla::checkpoint {

/// Llama-3's frequency rescaling ("rope_type": "llama3").
struct Llama3RopeScaling {
    double factor = 1;
    double low_freq_factor = 1;
    double high_freq_factor = 1;
    int original_max_position_embeddings = 0;

    bool operator==(const Llama3RopeScaling&) const = default;
};

/// Grouped-query attention of a source model (multi-head when num_key_value_heads == num_attention_heads).
struct GqaConfig {
    bool operator==(const GqaConfig&) const = default;
};

/// Which rotary pairs the un-rotated part of query and key holds.
enum class NopePairs {
    unrotated,  ///< those not in rope_pairs: dn = d - dr
    all,        ///< all P pairs: dn = d
};

/// Multi-head latent attention: the "mla" object of docs/checkpoint.md. Per-layer vectors have num_hidden_layers items.
struct MlaConfig {
    std::vector<int> kv_lora_rank;                          ///< R of each layer
    std::vector<int> qk_rope_head_dim;                      ///< dr of each layer, even
    std::vector<int> qk_nope_head_dim;                      ///< dn of each layer, even
    int v_head_dim = 0;                                     ///< dv
    int num_rope_key_heads = 0;                             ///< K: num_key_value_heads (one per KV head) or 1 (shared)
    int latent_groups = 1;                                  ///< L: runs of KV heads, each with its own R / L elements
    std::vector<std::vector<std::vector<int>>> rope_pairs;  ///< [layer][rotary key head][dr/2] indices below head_dim/2
    NopePairs nope_pairs = NopePairs::unrotated;
    bool positional_part = false;  ///< k_mean: the keys' constant component keeps its RoPE without a cache
    int sink_tokens = 0;           ///< so many first tokens keep full keys and values; needs the positional part
    bool q_nope_factor = false;    ///< the tensor is there (not a field of config.json)
    bool q_rope_factor = false;    ///< likewise
    bool q_rope_proj = false;      ///< likewise: the rotary query has rows of its own
    double softmax_scale = 0;      ///< 1/sqrt(head_dim)
    std::string source_model_type;

    bool operator==(const MlaConfig&) const = default;

    /// Cached elements per token of one layer: R + K * dr.
    int cached_elements(int layer) const {
        const auto l = static_cast<std::size_t>(layer);
        return kv_lora_rank[l] + num_rope_key_heads * qk_rope_head_dim[l];
    }
    /// What a KV head reads of the latent: R / L elements, those of its group.
    int head_rank(int layer) const { return kv_lora_rank[static_cast<std::size_t>(layer)] / latent_groups; }
    /// A group's latent and rotary keys: (R + K * dr) / L.
    int row_width(int layer) const { return cached_elements(layer) / latent_groups; }
    /// The pairs of KV head g that carry no rotation, ascending (all of them for NopePairs::all). `pairs` = head_dim
    /// / 2.
    std::vector<int> unrotated_pairs(int layer, int kv_head, int pairs) const;
    /// The rotary key head that serves KV head g: g, or 0 where one is shared.
    int rope_key_head(int kv_head) const { return num_rope_key_heads == 1 ? 0 : kv_head; }
};

/// A decoder-only transformer as plain data. Read from config.json or GGUF metadata; unknown values are errors.
struct ModelConfig {
    std::string model_type;  ///< "llama", "mistral" or "mha2mla"
    int vocab_size = 0;
    int hidden_size = 0;
    int intermediate_size = 0;
    int num_hidden_layers = 0;
    int num_attention_heads = 0;
    int num_key_value_heads = 0;
    int head_dim = 0;
    int max_position_embeddings = 0;
    double rms_norm_eps = 0;
    double rope_theta = 0;
    std::optional<Llama3RopeScaling> rope_scaling;
    bool tie_word_embeddings = false;
    bool attention_bias = false;  ///< q, k, v and o carry biases
    bool mlp_bias = false;
    std::optional<int> bos_token_id;
    std::vector<int> eos_token_ids;
    std::variant<GqaConfig, MlaConfig> attention;

    bool operator==(const ModelConfig&) const = default;

    bool is_mla() const { return std::holds_alternative<MlaConfig>(attention); }
    const MlaConfig& mla() const { return std::get<MlaConfig>(attention); }
    /// Query heads that share a KV head.
    int group_size() const { return num_attention_heads / num_key_value_heads; }
    int rope_pairs() const { return head_dim / 2; }
    /// Cached elements per token of one layer: 2 G d, or R + K dr.
    int cached_elements(int layer) const;
};

/// Reads a Hugging Face config.json object. `where` names it in errors. Throws Error naming what is unsupported.
ModelConfig parse_config(const core::Json& config, const std::string& where);

/// The config.json of a model: `source` (the object that the source came with; may be empty for GGUF) with every field
/// that ModelConfig knows set to its value, and the "mla" object where the model has one.
core::OrderedJson config_to_json(const ModelConfig& config, const core::Json& source);

/// Angle per position of each rotary pair i: theta^(-2i/d), after rope_scaling. [head_dim / 2]
/// Source: RoFormer (arXiv 2104.09864) section 3.4.2; llama3 scaling as in transformers' modeling_rope_utils.
std::vector<double> rope_frequencies(const ModelConfig& config);

}  // namespace mha2mla::checkpoint
