#include "convert/lsq_method.h"

#include "convert/factor.h"
#include "convert/lsq_layer.h"

namespace mha2mla::convert {
namespace {

using torch::Tensor;

/// kv_a: the latent, then the rotary key, centred where the mean keeps its RoPE elsewhere.
void add_down(ConvertedAttention& out, const LayerTask& task, const LsqLayer& layer, const WeightedFactors& factors,
              const RotaryComponents& rotary) {
    out.tensors["self_attn.kv_a_proj_with_mqa.weight"] = torch::cat({factors.down, rotary.to_key.mm(layer.keys)});
    if (!latent_is_centred(task.plan)) return;
    const auto key_bias = bias_or_zero(task.source.k_bias, layer.keys.size(0));
    const auto constant = task.plan.options.lsq.mean_key ? key_bias - layer.mean_key : key_bias;
    out.tensors["self_attn.kv_a_proj_with_mqa.bias"] =
        torch::cat({-factors.down.mv(layer.input_mean), rotary.to_key.mv(constant)});
}

void add_output(ConvertedAttention& out, const LayerTask& task, const LsqLayer& layer) {
    out.tensors["self_attn.o_proj.weight"] = task.source.o_weight;
    if (!latent_is_centred(task.plan)) return;
    out.tensors["self_attn.o_proj.bias"] =
        bias_or_zero(task.source.o_bias, task.plan.source.hidden_size) +
        output_of_constant(precise(task.source.o_weight), layer.mean_value, task.plan.source.num_key_value_heads);
}

void add_exact_parts(ConvertedAttention& out, const LayerTask& task, const LsqLayer& layer) {
    const auto& lsq = task.plan.options.lsq;
    if (lsq.mean_key) out.tensors["self_attn.k_mean"] = layer.mean_key.view({task.plan.source.num_key_value_heads, -1});
    if (lsq.sinks == 0) return;
    out.tensors["self_attn.k_proj.weight"] = task.source.k_weight;
    out.tensors["self_attn.k_proj.bias"] = bias_or_zero(task.source.k_bias, layer.keys.size(0));
    out.tensors["self_attn.v_proj.weight"] = task.source.v_weight;
    out.tensors["self_attn.v_proj.bias"] = -layer.values.mv(layer.input_mean);  // b_v - (W_v mu + b_v)
}

}  // namespace

ConvertedAttention convert_lsq(const LayerTask& task) {
    const auto& mla = task.plan.target.mla();
    const auto index = static_cast<std::size_t>(task.layer);
    const LsqLayer layer = make_lsq_layer(task);
    const auto rotary = rotary_components(layer, task.plan, task.layer);
    auto problem = layer.latent;
    problem.keys = residual_keys(layer, rotary);
    const auto factors = factorize(problem, mla.kv_lora_rank.at(index));

    ConvertedAttention out;
    out.rope_pairs = {rotary.pairs};
    out.tensors["self_attn.q_proj.weight"] = task.source.q_weight;
    if (latent_is_centred(task.plan)) {
        out.tensors["self_attn.q_proj.bias"] = bias_or_zero(task.source.q_bias, task.source.q_weight.size(0));
    }
    add_down(out, task, layer, factors, rotary);
    out.tensors["self_attn.kv_b_proj.weight"] =
        interleave_heads(factors.key_up, factors.value_up, task.plan.source.num_key_value_heads);
    add_output(out, task, layer);
    if (mla.q_nope_factor) out.tensors["self_attn.q_nope_factor"] = layer.compensation.factor_HP2;
    if (!rotary.pairs.empty()) out.tensors["self_attn.q_rope_factor"] = rotary.factor_HC2;
    add_exact_parts(out, task, layer);
    out.fidelity.key_energy = kept_energy(problem.keys, factors.key_up.mm(factors.down));
    out.fidelity.value_energy = kept_energy(layer.values, factors.value_up.mm(factors.down));
    return out;
}

}  // namespace mha2mla::convert
