#pragma once

#include <cstdint>
#include <optional>
#include <torch/torch.h>
#include <utility>

#include "model/attention.h"

namespace mha2mla::model {

/// Widths of one layer's latent attention, named as in docs/checkpoint.md.
struct MlaShape {
    std::int64_t heads = 0;      ///< H query heads
    std::int64_t kv_heads = 0;   ///< G
    std::int64_t rope_keys = 0;  ///< K rotary key heads: G, or 1 shared by all
    std::int64_t rank = 0;       ///< R, the latent
    std::int64_t groups = 0;     ///< L, of KV heads: each reads R / L elements of the latent
    std::int64_t rope = 0;       ///< dr
    std::int64_t nope = 0;       ///< dn, may be 0
    std::int64_t value = 0;      ///< dv

    static MlaShape of(const checkpoint::ModelConfig& config, int layer);
};

/// Multi-head latent attention (arXiv 2405.04434 section 2.1) with the generalisations of docs/checkpoint.md:
/// logits = (q_nope · k_nope + q_rope · k_rope + q_pos · tau) softmax_scale, every part made from one query, or q_rope
/// from rows of its own. The first sink_tokens keys are exact instead: RoPE(q) · RoPE(k) of the source, with the
/// source's values. An emulated cache keeps a group's latent as one row, the rotated rotary keys of its heads as
/// another, and the sinks exactly.
class MlaAttentionImpl : public Attention {
public:
    MlaAttentionImpl(const Weights& weights, const checkpoint::ModelConfig& config, int layer);

    /// In the form that the options name.
    torch::Tensor forward(const torch::Tensor& x_BTE) override { return o_proj_(heads(x_BTE)); }
    /// What the heads hand to the output matrix: [batch, tokens, H dv].
    torch::Tensor heads(const torch::Tensor& x_BTE);

private:
    struct Projected {
        torch::Tensor q_nope_BTHn;
        torch::Tensor q_rope_BTHr;                 // rotated
        torch::Tensor latent_BTR;                  // what the cache holds, with:
        torch::Tensor k_rope_BTGr;                 // rotated; a shared head is repeated for each KV head
        std::optional<QueriesAndKeys> positional;  // q_pos and tau
        std::optional<Sinks> sinks;  // the source's rotated queries and keys, and its values, less their mean
    };
    Projected project(const torch::Tensor& x_BTE);
    torch::Tensor rotary_query(const torch::Tensor& x_BTE, const torch::Tensor& q_BTHd);
    std::pair<torch::Tensor, torch::Tensor> cached_rows(const torch::Tensor& x_BTE);
    QueriesAndKeys positional_part(const torch::Tensor& q_BTHd) const;
    Sinks sinks(const torch::Tensor& x_BTE, const torch::Tensor& q_BTHd);
    torch::Tensor universal_rows(std::int64_t tokens) const;
    torch::Tensor latents_of_heads(const torch::Tensor& latent_BTR) const;
    torch::Tensor rebuilt_keys_and_values(const torch::Tensor& latent_BTR);
    torch::Tensor expanded(const Projected& parts);
    torch::Tensor absorbed(const Projected& parts);
    torch::Tensor absorbed_logits(const Projected& parts, const torch::Tensor& key_up_GnR) const;
    void choose_pairs(const checkpoint::ModelConfig& config, int layer, const ModelOptions& options);
    void load_optional_parts(const Weights& weights, const checkpoint::ModelConfig& config);

    MlaShape shape_;
    AttentionForm form_;
    std::optional<cache::CacheFormat> emulated_cache_;
    double scale_;
    torch::Tensor nope_pairs_;        // [G, dn/2], of the query
    torch::Tensor rope_pairs_;        // [K, dr/2]
    torch::Tensor rope_frequencies_;  // [K, dr/2]
    torch::Tensor all_frequencies_;   // [1, d/2]
    torch::Tensor q_nope_factor_;     // [H, dn/2, 2], undefined where absent
    torch::Tensor q_rope_factor_;     // [H, dr/2, 2], likewise
    torch::Tensor k_mean_;            // [G, d], likewise
    std::int64_t sink_tokens_ = 0;
    Linear q_proj_ = nullptr;
    Linear kv_a_proj_with_mqa_ = nullptr;
    Linear kv_b_proj_ = nullptr;
    Linear o_proj_ = nullptr;
    Linear q_rope_proj_ = nullptr;  // of the rotary query, where it has rows of its own
    Linear k_proj_ = nullptr;       // of the sinks
    Linear v_proj_ = nullptr;
};
TORCH_MODULE(MlaAttention);

}  // namespace mha2mla::model
