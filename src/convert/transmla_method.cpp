#include "convert/transmla_method.h"

#include "convert/factor.h"
#include "convert/transmla_parts.h"
#include "core/error.h"

namespace mha2mla::convert {
namespace {

using torch::Tensor;

Activation activation(const Tensor& weight, const Tensor& bias) {
    return {precise(weight), bias_or_zero(bias, weight.size(0))};
}

Activation times(const Tensor& matrix, const Activation& a) { return {matrix.mm(a.weight), matrix.mv(a.bias)}; }

/// The columns of a change of basis that belong to each KV head: [G, rows, d].
Tensor by_head(const Tensor& rotation, std::int64_t kv_heads) {
    return rotation.unflatten(1, {kv_heads, -1}).transpose(0, 1);
}

/// What each query head says to the rotary key: its KV head's part of the change of basis, absorbed. [H 2C, E]
Activation rotary_queries(const Activation& queries, const Tensor& rotary, const checkpoint::ModelConfig& config) {
    const auto basis_HCd = by_head(rotary, config.num_key_value_heads).repeat_interleave(config.group_size(), 0);
    const auto weight_HdE = queries.weight.unflatten(0, {config.num_attention_heads, -1});
    const auto bias_Hd1 = queries.bias.view({config.num_attention_heads, -1, 1});
    return {basis_HCd.bmm(weight_HdE).flatten(0, 1), basis_HCd.bmm(bias_Hd1).flatten()};
}

void add_projection(ConvertedAttention& out, const std::string& name, const Activation& map, bool has_bias) {
    out.tensors["self_attn." + name + ".weight"] = map.weight;
    if (has_bias) out.tensors["self_attn." + name + ".bias"] = map.bias;
}

}  // namespace

ConvertedAttention convert_transmla(const LayerTask& task) {
    const auto& config = task.plan.source;
    const auto& options = task.plan.options.transmla;
    core::invariant(options.freqfold.has_value(), "transmla converts once its freqfold is chosen");
    const std::int64_t kv_heads = config.num_key_value_heads;
    const std::int64_t components = *options.rope_components;
    const bool biased = config.attention_bias;
    const InputStatistics input{task.moments->input_mean, task.moments->token_covariance};
    const auto queries = activation(task.source.q_weight, task.source.q_bias);
    const auto keys = activation(task.source.k_weight, task.source.k_bias);
    const auto values = activation(task.source.v_weight, task.source.v_bias);

    const auto rotation = rotate_keys(second_moment(keys, input), {kv_heads, components, *options.freqfold});
    const auto factors =
        balance_and_factorize({.keys = times(rotation.still, keys),
                               .values = values,
                               .input = input,
                               .balance = options.balance_kv,
                               .unweighed_values = 2 * components},
                              task.plan.target.mla().kv_lora_rank.at(static_cast<std::size_t>(task.layer)));
    const auto rotary_keys = times(rotation.rotary, keys);
    const auto key_up = rotation.still.t().mm(factors.key_up);

    ConvertedAttention out;
    add_projection(out, "q_proj", queries, biased);
    add_projection(out, "q_rope_proj", rotary_queries(queries, rotation.rotary, config), biased);
    add_projection(out, "kv_a_proj_with_mqa",
                   {torch::cat({factors.down, rotary_keys.weight}), torch::cat({factors.bias, rotary_keys.bias})},
                   biased);
    out.tensors["self_attn.kv_b_proj.weight"] = interleave_heads(key_up, factors.value_up, kv_heads);
    add_projection(out, "o_proj", {task.source.o_weight, task.source.o_bias}, biased);
    out.fidelity.key_energy =
        kept_energy(rotation.still.t().mm(rotation.still).mm(keys.weight), key_up.mm(factors.down));
    out.fidelity.value_energy = kept_energy(values.weight, factors.value_up.mm(factors.down));
    return out;
}

}  // namespace mha2mla::convert
