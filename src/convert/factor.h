#pragma once

#include <torch/torch.h>

#include "convert/plan.h"

namespace mha2mla::convert {

/// Keys = key_up · down and values = value_up · down: one latent of width R for both (arXiv 2502.14837 section 3.2).
struct Factors {
    torch::Tensor down_RE;
    torch::Tensor key_up_KR;    ///< K = un-rotated key rows, may be 0
    torch::Tensor value_up_VR;  ///< V = value rows
};

/// One SVD of the stack [keys; values], singular values in `up`: the best joint factors of rank `rank` in the plain
/// norm. keys [K, E], values [V, E], fp32.
Factors joint_svd(const torch::Tensor& keys, const torch::Tensor& values, std::int64_t rank);

/// One SVD each; the latent holds the keys' part, then the values'.
Factors split_svd(const torch::Tensor& keys, const torch::Tensor& values, const LatentSplit& split);

/// The rows themselves as latent: exact, R = K + V.
Factors identity_factors(const torch::Tensor& keys, const torch::Tensor& values);

/// kv_b_proj of the key and value rows, all heads' one after the other: per KV head its keys, then its values.
torch::Tensor interleave_heads(const torch::Tensor& keys, const torch::Tensor& values, std::int64_t kv_heads);

/// What a constant [G d] in the values adds to the layer's output: attention weights sum to 1. [E]
torch::Tensor output_of_constant(const torch::Tensor& output_weight, const torch::Tensor& value, std::int64_t kv_heads);

/// fp64 on the CPU.
torch::Tensor precise(const torch::Tensor& tensor);
/// The bias in fp64, zeros where there is none.
torch::Tensor bias_or_zero(const torch::Tensor& bias, std::int64_t size);

/// 1 - ||W - approximation||² / ||W||²; 1 where W is empty or zero.
double kept_energy(const torch::Tensor& weight, const torch::Tensor& approximation);

}  // namespace mha2mla::convert
