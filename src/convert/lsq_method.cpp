#include "convert/lsq_method.h"

#include "convert/factor.h"
#include "convert/lsq_parts.h"
#include "core/error.h"

namespace mha2mla::convert {
namespace {

using calibrate::AttentionMoments;
using torch::Tensor;

constexpr double diagonal_share = 0.02;  // of the input covariance, against too little calibration text

Tensor precise(const Tensor& tensor) { return tensor.to(torch::kCPU, torch::kFloat64); }

/// The layer's weights in fp64, keys and values with the mean that calibration found.
struct Layer {
    Tensor keys, values;          // [G d, E]
    Tensor mean_key, mean_value;  // [G d], with their biases
    Tensor output_HEd;            // W_o of each head
    Tensor input_covariance;      // X [E, E]
    Tensor mean;                  // mu [E]
};

/// X = Cc / tr Cc + Ck / tr Ck + Cv / tr Cv, shrunk a little to its diagonal.
Tensor input_covariance(const AttentionMoments& moments, bool weighted) {
    const auto unit = [](const Tensor& c) { return c / c.trace().clamp_min(1e-300); };
    auto x = unit(moments.token_covariance);
    if (weighted) x = x + unit(moments.key_covariance) + unit(moments.value_covariance);
    return (1 - diagonal_share) * x + diagonal_share * torch::diag(torch::diag(x));
}

Tensor bias_or_zero(const Tensor& bias, std::int64_t size) {
    return bias.defined() ? precise(bias) : torch::zeros({size}, torch::kFloat64);
}

Layer prepare(const LayerTask& task) {
    const auto& moments = *task.moments;
    const auto& config = task.plan.source;
    Layer layer;
    layer.keys = precise(task.source.k_weight);
    layer.values = precise(task.source.v_weight);
    layer.mean = moments.input_mean;
    layer.mean_key = layer.keys.mv(layer.mean) + bias_or_zero(task.source.k_bias, layer.keys.size(0));
    layer.mean_value = layer.values.mv(layer.mean) + bias_or_zero(task.source.v_bias, layer.values.size(0));
    layer.output_HEd = precise(task.source.o_weight).unflatten(1, {config.num_attention_heads, -1}).transpose(0, 1);
    layer.input_covariance = input_covariance(moments, task.plan.options.lsq.weighted);
    return layer;
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

RotaryProblem rotary_problem(const LayerTask& task, const Layer& layer, const Compensation& compensation) {
    const auto& moments = *task.moments;
    const auto& lsq = task.plan.options.lsq;
    const auto cost = moments.logit_cost.unsqueeze(1);
    const auto halves = torch::diagonal(moments.query_gram, 0, 1, 2).chunk(2, 1);
    auto covariance = moments.token_covariance;
    auto keys = layer.keys.mm(covariance).mm(layer.keys.t());
    if (!lsq.mean_key) keys = keys + torch::outer(layer.mean_key, layer.mean_key);
    return {
        .key_covariance = keys,
        .weight_GP = sum_groups(cost * (halves[0] + halves[1]), task.plan.source.num_key_value_heads),
        .kept_loss_P = (cost * compensation.residual_HP).sum(0) / (cost * moments.pairs.tt).sum(0).clamp_min(1e-300),
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

WeightedFactors latent(const LayerTask& task, const Layer& layer, const Tensor& residual_keys,
                       const Compensation& compensation) {
    const auto kv_heads = static_cast<std::int64_t>(task.plan.source.num_key_value_heads);
    WeightedProblem problem{
        .keys = residual_keys,
        .values = layer.values,
        .key_metric_Gdd = key_metric(*task.moments, compensation, kv_heads),
        .value_metric_Gdd = sum_groups(layer.output_HEd.transpose(1, 2).bmm(layer.output_HEd), kv_heads),
        .input_covariance = layer.input_covariance};
    if (!task.plan.options.lsq.weighted) {
        const auto identity = torch::eye(task.plan.source.head_dim, torch::kFloat64).expand_as(problem.key_metric_Gdd);
        problem.key_metric_Gdd = problem.value_metric_Gdd = identity.contiguous();
    }
    return factorize(problem, task.plan.target.mla().kv_lora_rank.at(static_cast<std::size_t>(task.layer)));
}

/// kv_a: the centred latent, then the rotary key, centred where the mean keeps its RoPE elsewhere.
void add_down(ConvertedAttention& out, const LayerTask& task, const Layer& layer, const WeightedFactors& factors,
              const RotaryComponents& rotary) {
    const auto key_bias = bias_or_zero(task.source.k_bias, layer.keys.size(0));
    const auto constant = task.plan.options.lsq.mean_key ? key_bias - layer.mean_key : key_bias;
    out.tensors["self_attn.kv_a_proj_with_mqa.weight"] = torch::cat({factors.down, rotary.to_key.mm(layer.keys)});
    out.tensors["self_attn.kv_a_proj_with_mqa.bias"] =
        torch::cat({-factors.down.mv(layer.mean), rotary.to_key.mv(constant)});
}

void add_exact_parts(ConvertedAttention& out, const LayerTask& task, const Layer& layer) {
    const auto& lsq = task.plan.options.lsq;
    if (lsq.mean_key) out.tensors["self_attn.k_mean"] = layer.mean_key.view({task.plan.source.num_key_value_heads, -1});
    if (lsq.sinks == 0) return;
    out.tensors["self_attn.k_proj.weight"] = task.source.k_weight;
    out.tensors["self_attn.k_proj.bias"] = bias_or_zero(task.source.k_bias, layer.keys.size(0));
    out.tensors["self_attn.v_proj.weight"] = task.source.v_weight;
    out.tensors["self_attn.v_proj.bias"] = -layer.values.mv(layer.mean);  // b_v - (W_v mu + b_v)
}

}  // namespace

ConvertedAttention convert_lsq(const LayerTask& task) {
    const auto& lsq = task.plan.options.lsq;
    const std::int64_t kv_heads = task.plan.source.num_key_value_heads;
    const Layer layer = prepare(task);
    const auto compensation = compensate(task.moments->pairs, lsq.compensate);
    const auto rotary = choose_components(rotary_problem(task, layer, compensation), *lsq.rope_components);
    const auto residual_keys = layer.keys - rotary.from_key.mm(rotary.to_key.mm(layer.keys));
    const auto factors = latent(task, layer, residual_keys, compensation);

    ConvertedAttention out;
    out.rope_pairs = {rotary.pairs};
    out.tensors["self_attn.q_proj.weight"] = task.source.q_weight;
    out.tensors["self_attn.q_proj.bias"] = bias_or_zero(task.source.q_bias, task.source.q_weight.size(0));
    add_down(out, task, layer, factors, rotary);
    out.tensors["self_attn.kv_b_proj.weight"] = interleave_heads(factors.key_up, factors.value_up, kv_heads);
    out.tensors["self_attn.o_proj.weight"] = task.source.o_weight;
    out.tensors["self_attn.o_proj.bias"] =
        bias_or_zero(task.source.o_bias, task.plan.source.hidden_size) +
        output_of_constant(precise(task.source.o_weight), layer.mean_value, kv_heads);
    if (lsq.compensate) out.tensors["self_attn.q_nope_factor"] = compensation.factor_HP2;
    if (*lsq.rope_components > 0) out.tensors["self_attn.q_rope_factor"] = rotary.factor_HC2;
    add_exact_parts(out, task, layer);
    out.fidelity.key_energy = kept_energy(residual_keys, factors.key_up.mm(factors.down));
    out.fidelity.value_energy = kept_energy(layer.values, factors.value_up.mm(factors.down));
    return out;
}

}  // namespace mha2mla::convert
