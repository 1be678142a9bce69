#include "model/mla_attention.h"

#include <limits>
#include <vector>

#include "core/error.h"
#include "model/rotary.h"

namespace mha2mla::model {
namespace {

/// The dims of `pairs` in a head of `half` pairs: first halves, then second halves.
void append_dims(std::vector<std::int64_t>& dims, const std::vector<int>& pairs, std::int64_t head, std::int64_t half) {
    const std::int64_t first = head * 2 * half;
    for (const int pair : pairs) dims.push_back(first + pair);
    for (const int pair : pairs) dims.push_back(first + half + pair);
}

void refuse_optional_parts(const checkpoint::MlaConfig& mla) {
    if (!mla.positional_part && mla.sink_tokens == 0) return;
    throw core::Error(
        {.what = "the model has a positional part or exact sink tokens, which this program cannot compute",
         .where = "config.json, mla",
         .remedy = "convert the source model again with this program"});
}

torch::Tensor causal_mask(std::int64_t tokens, torch::Device device) {
    return torch::ones({tokens, tokens}, torch::TensorOptions(torch::kBool).device(device)).triu(1);
}

}  // namespace

MlaShape MlaShape::of(const checkpoint::ModelConfig& config, int layer) {
    const auto& mla = config.mla();
    const auto l = static_cast<std::size_t>(layer);
    return {.heads = config.num_attention_heads,
            .kv_heads = config.num_key_value_heads,
            .rope_keys = mla.num_rope_key_heads,
            .rank = mla.kv_lora_rank.at(l),
            .rope = mla.qk_rope_head_dim.at(l),
            .nope = mla.qk_nope_head_dim.at(l),
            .value = mla.v_head_dim};
}

MlaAttentionImpl::MlaAttentionImpl(const Weights& weights, const checkpoint::ModelConfig& config, int layer)
    : shape_(MlaShape::of(config, layer)), form_(weights.options().attention), scale_(config.mla().softmax_scale) {
    refuse_optional_parts(config.mla());
    const auto bias = config.attention_bias;
    const std::int64_t hidden = config.hidden_size;
    const LinearShape query{hidden, shape_.heads * config.head_dim, bias};
    const LinearShape down{hidden, shape_.rank + shape_.rope_keys * shape_.rope, bias};
    const LinearShape up{shape_.rank, shape_.kv_heads * (shape_.nope + shape_.value), false};
    const LinearShape output{shape_.heads * shape_.value, hidden, bias};
    q_proj_ = register_module("q_proj", Linear(weights.under("q_proj"), query));
    kv_a_proj_with_mqa_ = register_module("kv_a_proj_with_mqa", Linear(weights.under("kv_a_proj_with_mqa"), down));
    kv_b_proj_ = register_module("kv_b_proj", Linear(weights.under("kv_b_proj"), up));
    o_proj_ = register_module("o_proj", Linear(weights.under("o_proj"), output));
    pick_dims(config, layer, weights.options());
}

void MlaAttentionImpl::pick_dims(const checkpoint::ModelConfig& config, int layer, const ModelOptions& options) {
    const auto& mla = config.mla();
    const auto& rope_pairs = mla.rope_pairs.at(static_cast<std::size_t>(layer));
    std::vector<std::int64_t> nope;
    std::vector<std::int64_t> rope;
    std::vector<std::vector<int>> query_pairs;
    for (int head = 0; head < config.num_attention_heads; ++head) {
        const int kv_head = head / config.group_size();
        query_pairs.push_back(rope_pairs.at(static_cast<std::size_t>(mla.rope_key_head(kv_head))));
        append_dims(rope, query_pairs.back(), head, config.rope_pairs());
        append_dims(nope, mla.unrotated_pairs(layer, kv_head, config.rope_pairs()), head, config.rope_pairs());
    }
    core::invariant(static_cast<std::int64_t>(nope.size()) == shape_.heads * shape_.nope, "dn fits nope_pairs");
    core::invariant(static_cast<std::int64_t>(rope.size()) == shape_.heads * shape_.rope, "dr fits rope_pairs");
    nope_dims_ = register_buffer("nope_dims", torch::tensor(nope, torch::kInt64).to(options.device));
    rope_dims_ = register_buffer("rope_dims", torch::tensor(rope, torch::kInt64).to(options.device));
    query_frequencies_ = register_buffer("query_frequencies", pair_frequencies(config, query_pairs, options));
    key_frequencies_ = register_buffer("key_frequencies", pair_frequencies(config, rope_pairs, options));
}

MlaAttentionImpl::Projected MlaAttentionImpl::project(const torch::Tensor& x_BTE) {
    const auto batch = x_BTE.size(0);
    const auto tokens = x_BTE.size(1);
    const auto q = q_proj_(x_BTE);
    const auto q_rope = q.index_select(2, rope_dims_).view({batch, tokens, shape_.heads, shape_.rope});
    const auto compressed = kv_a_proj_with_mqa_(x_BTE).split({shape_.rank, shape_.rope_keys * shape_.rope}, 2);
    const auto k_rope =
        rotate_pairs(compressed[1].view({batch, tokens, shape_.rope_keys, shape_.rope}), key_frequencies_);
    return {.q_nope_BTHn = q.index_select(2, nope_dims_).view({batch, tokens, shape_.heads, shape_.nope}),
            .q_rope_BTHr = rotate_pairs(q_rope, query_frequencies_),
            .latent_BTR = compressed[0],
            .k_rope_BTGr = k_rope.expand({batch, tokens, shape_.kv_heads, shape_.rope})};
}

torch::Tensor MlaAttentionImpl::forward(const torch::Tensor& x_BTE) {
    const Projected parts = project(x_BTE);
    return o_proj_(form_ == AttentionForm::expanded ? expanded(parts) : absorbed(parts));
}

torch::Tensor MlaAttentionImpl::expanded(const Projected& parts) {
    const auto rebuilt = kv_b_proj_(parts.latent_BTR).unflatten(2, {shape_.kv_heads, shape_.nope + shape_.value});
    const auto keys_values = rebuilt.split({shape_.nope, shape_.value}, 3);
    const auto q = torch::cat({parts.q_nope_BTHn, parts.q_rope_BTHr}, 3);
    const auto k = torch::cat({keys_values[0], parts.k_rope_BTGr}, 3);
    return causal_attention(q, k, keys_values[1], scale_);
}

/// [batch, G, heads of a group, query tokens, key tokens], scaled and masked, in the precise type.
torch::Tensor MlaAttentionImpl::absorbed_logits(const Projected& parts, const torch::Tensor& key_up_GnR) const {
    const std::vector<std::int64_t> grouped{shape_.kv_heads, shape_.heads / shape_.kv_heads};
    const auto q_nope = parts.q_nope_BTHn.unflatten(2, grouped);
    const auto q_rope = parts.q_rope_BTHr.unflatten(2, grouped);
    const auto q_latent = torch::einsum("btghn,gnr->btghr", {q_nope, key_up_GnR});
    const auto logits = torch::einsum("bqghr,bkr->bghqk", {q_latent, parts.latent_BTR}) +
                        torch::einsum("bqghd,bkgd->bghqk", {q_rope, parts.k_rope_BTGr});
    const auto precise = logits.to(precise_type(logits.scalar_type())) * scale_;
    return precise.masked_fill(causal_mask(logits.size(-1), logits.device()), -std::numeric_limits<double>::infinity());
}

torch::Tensor MlaAttentionImpl::absorbed(const Projected& parts) {
    const auto up = kv_b_proj_->weight.view({shape_.kv_heads, shape_.nope + shape_.value, shape_.rank})
                        .split({shape_.nope, shape_.value}, 1);
    const auto p = absorbed_logits(parts, up[0]).softmax(-1).to(parts.latent_BTR.scalar_type());
    const auto mixed_latent = torch::einsum("bghqk,bkr->bqghr", {p, parts.latent_BTR});
    return torch::einsum("bqghr,gvr->bqghv", {mixed_latent, up[1]}).flatten(2);
}

}  // namespace mha2mla::model
