#include "convert/lsq_layer.h"

#include "convert/factor.h"

namespace mha2mla::convert {
namespace {

using calibrate::AttentionMoments;
using torch::Tensor;

constexpr double diagonal_share = 0.02;  // of the input covariance, against too little calibration text

/// X = Cc / tr Cc + Ck / tr Ck + Cv / tr Cv, shrunk a little to its diagonal. Where the latent holds the mean too, Cc
/// and Cv are about zero: keys lose nothing by a constant, values do.
Tensor input_covariance(const AttentionMoments& moments, bool weighted, bool centred) {
    const auto unit = [](const Tensor& c) { return c / c.trace().clamp_min(1e-300); };
    const auto mean =
        centred ? torch::zeros_like(moments.token_covariance) : torch::outer(moments.input_mean, moments.input_mean);
    auto x = unit(moments.token_covariance + mean);
    if (weighted) x = x + unit(moments.key_covariance) + unit(moments.value_covariance + mean);
    return (1 - diagonal_share) * x + diagonal_share * torch::diag(torch::diag(x));
}

/// Sums [H, ...] over the query heads of each KV head.
Tensor sum_groups(const Tensor& per_head, std::int64_t kv_heads) {
    return per_head.unflatten(0, {kv_heads, -1}).sum(1);
}

/// Real form of the compensation: [H, d, d] with q' = Q q.
Tensor factor_matrices(const Tensor& factor_HP2) {
    const auto re = torch::diag_embed(factor_HP2.select(2, 0));
    const auto im = torch::diag_embed(factor_HP2.select(2, 1));
    return torch::cat({torch::cat({re, -im}, 2), torch::cat({im, re}, 2)}, 1);
}

RotaryProblem rotary_problem(const LayerTask& task, const LsqLayer& layer) {
    const auto& moments = *task.moments;
    const auto& lsq = task.plan.options.lsq;
    const auto cost = moments.logit_cost.unsqueeze(1);
    const auto halves = torch::diagonal(moments.query_gram, 0, 1, 2).chunk(2, 1);
    auto keys = layer.keys.mm(moments.token_covariance).mm(layer.keys.t());
    if (!lsq.mean_key) keys = keys + torch::outer(layer.mean_key, layer.mean_key);
    const auto lost = (cost * layer.compensation.residual_HP).sum(0);
    return {.key_covariance = keys,
            .weight_GP = sum_groups(cost * (halves[0] + halves[1]), task.plan.source.num_key_value_heads),
            .kept_loss_P = lost / (cost * moments.pairs.tt).sum(0).clamp_min(1e-300),
            .lost_P = lost / task.plan.source.head_dim,
            .query_heads = task.plan.source.num_attention_heads,
            .mix_heads = lsq.shared_rope};
}

/// L_k: what an error of an un-rotated key costs. [G, d, d]
Tensor key_metric(const AttentionMoments& moments, const Compensation& compensation, std::int64_t kv_heads) {
    const auto factors = factor_matrices(compensation.factor_HP2);
    const auto gram = factors.bmm(moments.query_gram).bmm(factors.transpose(1, 2));
    const auto width = static_cast<double>(gram.size(1));
    return sum_groups(moments.logit_cost.view({-1, 1, 1}) * gram / width, kv_heads);
}

WeightedProblem latent_problem(const LayerTask& task, const LsqLayer& layer) {
    const auto& config = task.plan.source;
    const std::int64_t kv_heads = config.num_key_value_heads;
    const bool weighted = task.plan.options.lsq.weighted;
    const auto output_HEd =
        precise(task.source.o_weight).unflatten(1, {config.num_attention_heads, -1}).transpose(0, 1);
    const auto identity = torch::eye(config.head_dim, torch::kFloat64).repeat({kv_heads, 1, 1});
    return {.keys = layer.keys,
            .values = layer.values,
            .key_metric = make_metric(weighted ? key_metric(*task.moments, layer.compensation, kv_heads) : identity),
            .value_metric =
                make_metric(weighted ? sum_groups(output_HEd.transpose(1, 2).bmm(output_HEd), kv_heads) : identity),
            .input_root = root_of(input_covariance(*task.moments, weighted, latent_is_centred(task.plan)))};
}

}  // namespace

bool latent_is_centred(const Plan& plan) { return plan.target.attention_bias; }

LsqLayer make_lsq_layer(const LayerTask& task) {
    const auto& moments = *task.moments;
    LsqLayer layer;
    layer.keys = precise(task.source.k_weight);
    layer.values = precise(task.source.v_weight);
    layer.input_mean = moments.input_mean;
    layer.latent_is_centred = latent_is_centred(task.plan);
    layer.mean_key = layer.keys.mv(layer.input_mean) + bias_or_zero(task.source.k_bias, layer.keys.size(0));
    layer.mean_value = layer.values.mv(layer.input_mean) + bias_or_zero(task.source.v_bias, layer.values.size(0));
    layer.compensation = compensate(moments.pairs, task.plan.options.lsq.compensate);
    layer.rotary = rotary_problem(task, layer);
    layer.latent = latent_problem(task, layer);
    return layer;
}

RotaryComponents rotary_components(const LsqLayer& layer, const Plan& plan, int index) {
    const auto& mla = plan.target.mla();
    const auto at = static_cast<std::size_t>(index);
    const auto& pairs = mla.rope_pairs.at(at);
    return pairs.empty() ? choose_components(layer.rotary, mla.qk_rope_head_dim.at(at) / 2)
                         : components_of(layer.rotary, pairs.front());
}

Tensor residual_keys(const LsqLayer& layer, const RotaryComponents& rotary) {
    return layer.keys - rotary.from_key.mm(rotary.to_key.mm(layer.keys));
}

}  // namespace mha2mla::convert
