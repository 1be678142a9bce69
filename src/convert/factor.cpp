#include "convert/factor.h"

namespace mha2mla::convert {
namespace {

struct LowRank {
    torch::Tensor up;    // [rows, rank]
    torch::Tensor down;  // [rank, columns], orthonormal rows
};

LowRank truncated_svd(const torch::Tensor& weight, std::int64_t rank) {
    if (rank == 0) return {weight.new_zeros({weight.size(0), 0}), weight.new_zeros({0, weight.size(1)})};
    const auto [u, singular, vh] = torch::linalg_svd(weight, /*full_matrices=*/false);
    return {u.narrow(1, 0, rank) * singular.narrow(0, 0, rank), vh.narrow(0, 0, rank)};
}

/// Keys read the first rows of the latent, values the rest.
Factors side_by_side(const LowRank& keys, const LowRank& values) {
    const auto key_rank = keys.down.size(0);
    const auto value_rank = values.down.size(0);
    return {.down_RE = torch::cat({keys.down, values.down}),
            .key_up_KR = torch::constant_pad_nd(keys.up, {0, value_rank}),
            .value_up_VR = torch::constant_pad_nd(values.up, {key_rank, 0})};
}

}  // namespace

Factors joint_svd(const torch::Tensor& keys, const torch::Tensor& values, std::int64_t rank) {
    const LowRank both = truncated_svd(torch::cat({keys, values}), rank);
    const auto ups = both.up.split({keys.size(0), values.size(0)});
    return {.down_RE = both.down, .key_up_KR = ups[0], .value_up_VR = ups[1]};
}

Factors split_svd(const torch::Tensor& keys, const torch::Tensor& values, const LatentSplit& split) {
    return side_by_side(truncated_svd(keys, split.keys), truncated_svd(values, split.values));
}

Factors identity_factors(const torch::Tensor& keys, const torch::Tensor& values) {
    const auto exact = [](const torch::Tensor& w) { return LowRank{torch::eye(w.size(0), w.options()), w}; };
    return side_by_side(exact(keys), exact(values));
}

torch::Tensor interleave_heads(const torch::Tensor& keys, const torch::Tensor& values, std::int64_t kv_heads) {
    return torch::cat({keys.unflatten(0, {kv_heads, -1}), values.unflatten(0, {kv_heads, -1})}, 1).flatten(0, 1);
}

torch::Tensor output_of_constant(const torch::Tensor& output_weight, const torch::Tensor& value,
                                 std::int64_t kv_heads) {
    const auto group = output_weight.size(1) / value.size(0);
    const auto of_query_heads = value.view({kv_heads, -1}).repeat_interleave(group, 0);
    return output_weight.mv(of_query_heads.flatten());
}

torch::Tensor precise(const torch::Tensor& tensor) { return tensor.to(torch::kCPU, torch::kFloat64); }

torch::Tensor bias_or_zero(const torch::Tensor& bias, std::int64_t size) {
    return bias.defined() ? precise(bias) : torch::zeros({size}, torch::kFloat64);
}

double kept_energy(const torch::Tensor& weight, const torch::Tensor& approximation) {
    const double total = weight.square().sum().to(torch::kFloat64).item<double>();
    if (total == 0) return 1;
    return 1 - (weight - approximation).square().sum().to(torch::kFloat64).item<double>() / total;
}

}  // namespace mha2mla::convert
