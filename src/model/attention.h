#pragma once

#include <optional>
#include <torch/torch.h>
#include <vector>

#include "model/layers.h"
#include "model/weights.h"

namespace mha2mla::model {

/// What a decoder layer needs of its attention, whatever the kind.
class Attention : public torch::nn::Module {
public:
    /// x_BTE -> [batch, tokens, hidden]; causal, the first token at position 0.
    virtual torch::Tensor forward(const torch::Tensor& x_BTE) = 0;
};

/// Queries [batch, tokens, H, width] and what they are compared with, [batch, tokens, G, width].
struct QueriesAndKeys {
    torch::Tensor q;
    torch::Tensor k;
};

/// Exact keys and values of the first S tokens, k [batch, S, G, width] and v [batch, S, G, v], for queries of their own
/// [batch, tokens, H, width]. They replace what the parts and v_BTGv say of these tokens, which must be finite all the
/// same where gradients are wanted.
struct Sinks {
    QueriesAndKeys exact;
    torch::Tensor v;
};

/// What attention reads. H is a multiple of G: query head h reads KV head h / (H / G).
struct AttentionInputs {
    std::vector<QueriesAndKeys> parts;  ///< a logit is the sum of their products
    torch::Tensor v_BTGv;
    std::optional<Sinks> sinks = {};
};

/// softmax(Σ q kᵀ scale + causal mask) v: [batch, tokens, H * v]. On a CPU in bf16, keys that have no gradient cost
/// none.
torch::Tensor causal_attention(const AttentionInputs& in, double scale);

/// Grouped-query attention of a source model (arXiv 2305.13245). An emulated cache keeps each head's rotated key and
/// its value as a row.
class GqaAttentionImpl : public Attention {
public:
    GqaAttentionImpl(const Weights& weights, const checkpoint::ModelConfig& config);

    torch::Tensor forward(const torch::Tensor& x_BTE) override;

    /// Before rotation: [batch, tokens, H, d] and [batch, tokens, G, d].
    torch::Tensor queries(const torch::Tensor& x_BTE);
    torch::Tensor keys(const torch::Tensor& x_BTE);
    torch::Tensor values(const torch::Tensor& x_BTE);  ///< [batch, tokens, G, d]
    /// RoPE of all pairs, the first token at position 0. x [batch, tokens, heads, d].
    torch::Tensor rotate(const torch::Tensor& x) const;
    const torch::Tensor& output_weight() const { return o_proj_->weight; }  ///< [E, H d]

private:
    torch::Tensor heads(const torch::Tensor& x) const;

    std::int64_t head_dim_;
    std::optional<cache::CacheFormat> emulated_cache_;
    torch::Tensor frequencies_;  // [1, d/2]
    Linear q_proj_ = nullptr;
    Linear k_proj_ = nullptr;
    Linear v_proj_ = nullptr;
    Linear o_proj_ = nullptr;
};
TORCH_MODULE(GqaAttention);

}  // namespace mha2mla::model
