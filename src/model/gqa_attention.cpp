#include <cmath>

#include "model/attention.h"
#include "model/cache_emulation.h"
#include "model/frequencies.h"
#include "model/turn_pairs.h"

namespace mha2mla::model {

GqaAttentionImpl::GqaAttentionImpl(const Weights& weights, const checkpoint::ModelConfig& config)
    : head_dim_(config.head_dim), emulated_cache_(weights.options().emulated_cache) {
    const auto query_width = config.num_attention_heads * head_dim_;
    const auto key_width = config.num_key_value_heads * head_dim_;
    const LinearShape to_keys{config.hidden_size, key_width, config.attention_bias};
    q_proj_ = register_module(
        "q_proj", Linear(weights.under("q_proj"), LinearShape{config.hidden_size, query_width, config.attention_bias}));
    k_proj_ = register_module("k_proj", Linear(weights.under("k_proj"), to_keys));
    v_proj_ = register_module("v_proj", Linear(weights.under("v_proj"), to_keys));
    o_proj_ = register_module(
        "o_proj", Linear(weights.under("o_proj"), LinearShape{query_width, config.hidden_size, config.attention_bias}));
    frequencies_ = register_buffer("frequencies", all_frequencies(config, weights.options()));
}

torch::Tensor GqaAttentionImpl::heads(const torch::Tensor& x) const {
    return x.view({x.size(0), x.size(1), -1, head_dim_});
}

torch::Tensor GqaAttentionImpl::queries(const torch::Tensor& x_BTE) { return heads(q_proj_(x_BTE)); }

torch::Tensor GqaAttentionImpl::keys(const torch::Tensor& x_BTE) { return heads(k_proj_(x_BTE)); }

torch::Tensor GqaAttentionImpl::values(const torch::Tensor& x_BTE) { return heads(v_proj_(x_BTE)); }

torch::Tensor GqaAttentionImpl::rotate(const torch::Tensor& x) const { return turn_pairs(x, {{}, frequencies_}); }

torch::Tensor GqaAttentionImpl::forward(const torch::Tensor& x_BTE) {
    const auto q = rotate(queries(x_BTE));
    auto k = rotate(keys(x_BTE));
    auto v = values(x_BTE);
    if (emulated_cache_) {
        k = through_cache(k, emulated_cache_->keys);
        v = through_cache(v, emulated_cache_->content);
    }
    const AttentionInputs in{.parts = {{q, k}}, .v_BTGv = v};
    return o_proj_(causal_attention(in, 1.0 / std::sqrt(static_cast<double>(head_dim_))));
}

}  // namespace mha2mla::model
