#include "model/mla_attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/error.h"
#include "model/cache_emulation.h"
#include "model/frequencies.h"
#include "model/turn_pairs.h"

namespace mha2mla::model {
namespace {

/// One list for each head, all of a length.
torch::Tensor as_rows(const std::vector<std::vector<int>>& lists, torch::Device device) {
    std::vector<std::int64_t> all;
    for (const auto& list : lists) all.insert(all.end(), list.begin(), list.end());
    return torch::tensor(all, torch::kInt64).view({std::ssize(lists), std::ssize(lists.front())}).to(device);
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
            .groups = mla.latent_groups,
            .rope = mla.qk_rope_head_dim.at(l),
            .nope = mla.qk_nope_head_dim.at(l),
            .value = mla.v_head_dim};
}

MlaAttentionImpl::MlaAttentionImpl(const Weights& weights, const checkpoint::ModelConfig& config, int layer)
    : shape_(MlaShape::of(config, layer)),
      form_(weights.options().attention),
      emulated_cache_(weights.options().emulated_cache),
      scale_(config.mla().softmax_scale) {
    const auto bias = config.attention_bias;
    const std::int64_t hidden = config.hidden_size;
    const LinearShape query{hidden, shape_.heads * config.head_dim, bias};
    const LinearShape down{hidden, shape_.rank + shape_.rope_keys * shape_.rope, bias};
    const LinearShape up{shape_.rank / shape_.groups, shape_.kv_heads * (shape_.nope + shape_.value), false};
    const LinearShape output{shape_.heads * shape_.value, hidden, bias};
    q_proj_ = register_module("q_proj", Linear(weights.under("q_proj"), query));
    kv_a_proj_with_mqa_ = register_module("kv_a_proj_with_mqa", Linear(weights.under("kv_a_proj_with_mqa"), down));
    kv_b_proj_ = register_module("kv_b_proj", Linear(weights.under("kv_b_proj"), up));
    o_proj_ = register_module("o_proj", Linear(weights.under("o_proj"), output));
    choose_pairs(config, layer, weights.options());
    load_optional_parts(weights, config);
}

void MlaAttentionImpl::load_optional_parts(const Weights& weights, const checkpoint::ModelConfig& config) {
    const auto& mla = config.mla();
    const std::int64_t width = config.head_dim;
    if (mla.q_nope_factor && shape_.nope > 0) {
        q_nope_factor_ =
            register_parameter("q_nope_factor", weights.load("q_nope_factor", {shape_.heads, shape_.nope / 2, 2}));
    }
    if (mla.q_rope_factor && shape_.rope > 0) {
        q_rope_factor_ =
            register_parameter("q_rope_factor", weights.load("q_rope_factor", {shape_.heads, shape_.rope / 2, 2}));
    }
    if (mla.q_rope_proj && shape_.rope > 0) {
        const LinearShape rotary{config.hidden_size, shape_.heads * shape_.rope, config.attention_bias};
        q_rope_proj_ = register_module("q_rope_proj", Linear(weights.under("q_rope_proj"), rotary));
    }
    if (mla.positional_part) k_mean_ = register_parameter("k_mean", weights.load("k_mean", {shape_.kv_heads, width}));
    if (mla.sink_tokens == 0) return;
    sink_tokens_ = mla.sink_tokens;
    const LinearShape full{config.hidden_size, shape_.kv_heads * width, config.attention_bias};
    k_proj_ = register_module("k_proj", Linear(weights.under("k_proj"), full));
    v_proj_ = register_module("v_proj", Linear(weights.under("v_proj"), full));
}

void MlaAttentionImpl::choose_pairs(const checkpoint::ModelConfig& config, int layer, const ModelOptions& options) {
    const auto& mla = config.mla();
    const auto& rope_pairs = mla.rope_pairs.at(static_cast<std::size_t>(layer));
    std::vector<std::vector<int>> nope_pairs;
    for (int head = 0; head < config.num_key_value_heads; ++head) {
        nope_pairs.push_back(mla.unrotated_pairs(layer, head, config.rope_pairs()));
        core::invariant(std::ssize(nope_pairs.back()) * 2 == shape_.nope, "dn fits nope_pairs");
    }
    core::invariant(std::ssize(rope_pairs) == shape_.rope_keys, "every rotary key has its pairs");
    for (const auto& pairs : rope_pairs) core::invariant(std::ssize(pairs) * 2 == shape_.rope, "dr fits rope_pairs");
    nope_pairs_ = register_buffer("nope_pairs", as_rows(nope_pairs, options.device));
    rope_pairs_ = register_buffer("rope_pairs", as_rows(rope_pairs, options.device));
    rope_frequencies_ = register_buffer("rope_frequencies", pair_frequencies(config, rope_pairs, options));
    all_frequencies_ = register_buffer("all_frequencies", all_frequencies(config, options));
}

/// [batch, tokens, H, dr], rotated: rows of its own, or picked out of q.
torch::Tensor MlaAttentionImpl::rotary_query(const torch::Tensor& x_BTE, const torch::Tensor& q_BTHd) {
    if (q_rope_proj_.is_empty()) return turn_pairs(q_BTHd, {rope_pairs_, rope_frequencies_}, q_rope_factor_);
    const auto own = q_rope_proj_(x_BTE).unflatten(2, {shape_.heads, shape_.rope});
    return turn_pairs(own, {{}, rope_frequencies_}, q_rope_factor_);
}

/// What the cache gives back of each token: the latent [B, T, R] and the rotated rotary keys [B, T, K, dr].
std::pair<torch::Tensor, torch::Tensor> MlaAttentionImpl::cached_rows(const torch::Tensor& x_BTE) {
    const auto compressed = kv_a_proj_with_mqa_(x_BTE).split({shape_.rank, shape_.rope_keys * shape_.rope}, 2);
    const auto k_rope =
        turn_pairs(compressed[1].unflatten(2, {shape_.rope_keys, shape_.rope}), {{}, rope_frequencies_});
    if (!emulated_cache_) return {compressed[0], k_rope};
    const auto by_groups = [&](const torch::Tensor& x) { return x.flatten(2).unflatten(2, {shape_.groups, -1}); };
    return {through_cache(by_groups(compressed[0]), emulated_cache_->content).flatten(2),
            through_cache(by_groups(k_rope), emulated_cache_->rotary).view_as(k_rope)};
}

MlaAttentionImpl::Projected MlaAttentionImpl::project(const torch::Tensor& x_BTE) {
    const auto batch = x_BTE.size(0);
    const auto tokens = x_BTE.size(1);
    const auto q = q_proj_(x_BTE).unflatten(2, {shape_.heads, -1});
    const auto [latent, k_rope] = cached_rows(x_BTE);
    Projected parts{.q_nope_BTHn = turn_pairs(q, {nope_pairs_, {}}, q_nope_factor_),
                    .q_rope_BTHr = rotary_query(x_BTE, q),
                    .latent_BTR = latent,
                    .k_rope_BTGr = k_rope.expand({batch, tokens, shape_.kv_heads, shape_.rope}),
                    .positional = {},
                    .sinks = {}};
    if (k_mean_.defined()) parts.positional = positional_part(q);
    if (sink_tokens_ > 0) parts.sinks = sinks(x_BTE, q);
    return parts;
}

/// q conj(k_mean), rotated by the query's position, and the universal rows.
QueriesAndKeys MlaAttentionImpl::positional_part(const torch::Tensor& q_BTHd) const {
    const auto halves = k_mean_.repeat_interleave(shape_.heads / shape_.kv_heads, 0).chunk(2, 1);
    const auto q_pos = turn_pairs(q_BTHd, {{}, all_frequencies_}, torch::stack({halves[0], -halves[1]}, 2));
    const auto tau = universal_rows(q_BTHd.size(1)).to(q_pos.scalar_type()).view({1, q_BTHd.size(1), 1, -1});
    return {q_pos, tau.expand({q_BTHd.size(0), -1, shape_.kv_heads, -1})};
}

/// tau(s) = (cos s theta_i ..., sin s theta_i ...): [tokens, d]
torch::Tensor MlaAttentionImpl::universal_rows(std::int64_t tokens) const {
    const auto angles = angles_of(all_frequencies_, tokens);
    return torch::cat({angles.cosine, angles.sine}, 2).squeeze(1);
}

Sinks MlaAttentionImpl::sinks(const torch::Tensor& x_BTE, const torch::Tensor& q_BTHd) {
    const auto first = x_BTE.slice(1, 0, std::min(sink_tokens_, x_BTE.size(1)));
    const auto k = turn_pairs(k_proj_(first).unflatten(2, {shape_.kv_heads, -1}), {{}, all_frequencies_});
    return {.exact = {turn_pairs(q_BTHd, {{}, all_frequencies_}), k},
            .v = v_proj_(first).unflatten(2, {shape_.kv_heads, -1})};
}

torch::Tensor MlaAttentionImpl::heads(const torch::Tensor& x_BTE) {
    const Projected parts = project(x_BTE);
    return form_ == AttentionForm::expanded ? expanded(parts) : absorbed(parts);
}

/// [batch, tokens, G (dn + dv)]: the heads of a group from its part of the latent.
torch::Tensor MlaAttentionImpl::rebuilt_keys_and_values(const torch::Tensor& latent_BTR) {
    if (shape_.groups == 1) return kv_b_proj_(latent_BTR);
    const auto latents = latent_BTR.chunk(shape_.groups, 2);
    const auto ups = kv_b_proj_->factor().chunk(shape_.groups, 0);
    std::vector<torch::Tensor> of_groups;
    for (std::size_t g = 0; g < latents.size(); ++g) of_groups.push_back(torch::linear(latents[g], ups[g]));
    return torch::cat(of_groups, 2);
}

torch::Tensor MlaAttentionImpl::expanded(const Projected& parts) {
    const auto rebuilt = rebuilt_keys_and_values(parts.latent_BTR).unflatten(2, {shape_.kv_heads, -1});
    const auto keys_values = rebuilt.split({shape_.nope, shape_.value}, 3);
    AttentionInputs in{.parts = {{parts.q_nope_BTHn, keys_values[0]}, {parts.q_rope_BTHr, parts.k_rope_BTGr}},
                       .v_BTGv = keys_values[1],
                       .sinks = parts.sinks};
    if (parts.positional) in.parts.push_back(*parts.positional);
    return causal_attention(in, scale_);
}

/// [batch, tokens, G, R / L]: what each KV head reads.
torch::Tensor MlaAttentionImpl::latents_of_heads(const torch::Tensor& latent_BTR) const {
    const auto of_groups = latent_BTR.unflatten(2, {shape_.groups, 1, -1});
    return of_groups.expand({-1, -1, -1, shape_.kv_heads / shape_.groups, -1}).flatten(2, 3);
}

/// [batch, G, heads of a group, query tokens, key tokens], scaled and masked, in the precise type.
torch::Tensor MlaAttentionImpl::absorbed_logits(const Projected& parts, const torch::Tensor& key_up_GnR) const {
    const std::vector<std::int64_t> grouped{shape_.kv_heads, shape_.heads / shape_.kv_heads};
    const auto products = [&](const QueriesAndKeys& part) {
        return torch::einsum("bqghd,bkgd->bghqk", {part.q.unflatten(2, grouped), part.k});
    };
    const auto q_latent = torch::einsum("btghn,gnr->btghr", {parts.q_nope_BTHn.unflatten(2, grouped), key_up_GnR});
    auto logits = torch::einsum("bqghr,bkgr->bghqk", {q_latent, latents_of_heads(parts.latent_BTR)}) +
                  products({parts.q_rope_BTHr, parts.k_rope_BTGr});
    if (parts.positional) logits = logits + products(*parts.positional);
    if (parts.sinks) {
        const auto exact = products(parts.sinks->exact);
        logits = torch::cat({exact, logits.slice(4, exact.size(4))}, 4);
    }
    const auto precise = logits.to(precise_type(logits.scalar_type())) * scale_;
    return precise.masked_fill(causal_mask(logits.size(-1), logits.device()), -std::numeric_limits<double>::infinity());
}

torch::Tensor MlaAttentionImpl::absorbed(const Projected& parts) {
    const auto up = kv_b_proj_->weight.view({shape_.kv_heads, shape_.nope + shape_.value, -1})
                        .split({shape_.nope, shape_.value}, 1);
    const auto p = absorbed_logits(parts, up[0]).softmax(-1).to(parts.latent_BTR.scalar_type());
    const auto sinks = parts.sinks ? parts.sinks->v.size(1) : 0;
    const auto latents = latents_of_heads(parts.latent_BTR.slice(1, sinks));
    const auto mixed_latent = torch::einsum("bghqk,bkgr->bqghr", {p.slice(4, sinks), latents});
    auto out = torch::einsum("bqghr,gvr->bqghv", {mixed_latent, up[1]});
    if (sinks > 0) out = out + torch::einsum("bghqk,bkgv->bqghv", {p.slice(4, 0, sinks), parts.sinks->v});
    return out.flatten(2);
}

}  // namespace mha2mla::model
