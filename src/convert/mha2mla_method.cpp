#include "convert/mha2mla_method.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "convert/factor.h"
#include "core/error.h"

namespace mha2mla::convert {
namespace {

/// Rows of the key projection, KV head by KV head: those that rotate and those that do not; within a head first the
/// first halves of its pairs, then the second halves.
struct KeyRows {
    torch::Tensor rotary;
    torch::Tensor plain;
};

torch::Tensor rows_of(const std::vector<std::vector<int>>& pairs, std::int64_t pairs_of_head, torch::Device device) {
    std::vector<std::int64_t> rows;
    for (std::size_t head = 0; head < pairs.size(); ++head) {
        const auto start = static_cast<std::int64_t>(head) * 2 * pairs_of_head;
        for (const int pair : pairs[head]) rows.push_back(start + pair);
        for (const int pair : pairs[head]) rows.push_back(start + pairs_of_head + pair);
    }
    return torch::tensor(rows, torch::kInt64).to(device);
}

KeyRows key_rows(const Plan& plan, int layer, torch::Device device) {
    const auto& mla = plan.target.mla();
    const int pairs = plan.source.rope_pairs();
    std::vector<std::vector<int>> plain;
    for (int head = 0; head < plan.source.num_key_value_heads; ++head) {
        plain.push_back(mla.unrotated_pairs(layer, head, pairs));
    }
    const auto& rotary = mla.rope_pairs.at(static_cast<std::size_t>(layer));
    return {.rotary = rows_of(rotary, pairs, device), .plain = rows_of(plain, pairs, device)};
}

/// Of the heads of one latent group.
Factors factorize_group(const torch::Tensor& keys, const torch::Tensor& values, const Plan& plan, int layer) {
    const auto& options = plan.options;
    switch (options.factorization) {
        case Factorization::none: return identity_factors(keys, values);
        case Factorization::split_svd:
            return split_svd(keys, values, split_latent(latent_group_of(plan.source, options), options));
        case Factorization::joint_svd: break;
    }
    return joint_svd(keys, values, plan.target.mla().head_rank(layer));
}

/// The factors of all latent groups one below the other, and what their products give.
struct AllFactors {
    Factors factors;
    torch::Tensor keys, values;
};

AllFactors factorize(const torch::Tensor& keys, const torch::Tensor& values, const Plan& plan, int layer) {
    const int groups = plan.target.mla().latent_groups;
    const auto keys_of = keys.chunk(groups);
    const auto values_of = values.chunk(groups);
    std::vector<torch::Tensor> down, key_up, value_up, key_products, value_products;
    for (std::size_t g = 0; g < keys_of.size(); ++g) {
        const Factors factors = factorize_group(keys_of[g], values_of[g], plan, layer);
        down.push_back(factors.down_RE);
        key_up.push_back(factors.key_up_KR);
        value_up.push_back(factors.value_up_VR);
        key_products.push_back(factors.key_up_KR.mm(factors.down_RE));
        value_products.push_back(factors.value_up_VR.mm(factors.down_RE));
    }
    return {
        .factors = {.down_RE = torch::cat(down), .key_up_KR = torch::cat(key_up), .value_up_VR = torch::cat(value_up)},
        .keys = torch::cat(key_products),
        .values = torch::cat(value_products)};
}

}  // namespace

ConvertedAttention convert_mha2mla(const LayerTask& task) {
    const auto& [source, plan, layer, moments] = task;
    const std::int64_t kv_heads = plan.source.num_key_value_heads;
    const KeyRows rows = key_rows(plan, layer, source.k_weight.device());
    const auto plain_keys = source.k_weight.index_select(0, rows.plain);
    const auto [factors, key_product, value_product] = factorize(plain_keys, source.v_weight, plan, layer);

    ConvertedAttention out;
    auto& tensors = out.tensors;
    tensors["self_attn.q_proj.weight"] = source.q_weight;
    tensors["self_attn.kv_a_proj_with_mqa.weight"] =
        torch::cat({factors.down_RE, source.k_weight.index_select(0, rows.rotary)});
    tensors["self_attn.kv_b_proj.weight"] = interleave_heads(factors.key_up_KR, factors.value_up_VR, kv_heads);
    tensors["self_attn.o_proj.weight"] = source.o_weight;
    if (plan.source.attention_bias) {
        const auto latent_bias = source.k_bias.new_zeros({factors.down_RE.size(0)});
        tensors["self_attn.q_proj.bias"] = source.q_bias;
        tensors["self_attn.kv_a_proj_with_mqa.bias"] =
            torch::cat({latent_bias, source.k_bias.index_select(0, rows.rotary)});
        tensors["self_attn.o_proj.bias"] = source.o_bias + output_of_constant(source.o_weight, source.v_bias, kv_heads);
    }
    out.fidelity.key_energy = kept_energy(plain_keys, key_product);
    out.fidelity.value_energy = kept_energy(source.v_weight, value_product);
    return out;
}

}  // namespace mha2mla::convert
