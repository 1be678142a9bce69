#pragma once

#include <torch/torch.h>

namespace mha2mla::model {

/// x / rms(x) * weight over the last dimension, the root mean square in fp32 (arXiv 1910.07467). Under an Autocast the
/// result is bf16, as products would round it anyway, each for itself.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon);

/// silu(gate) * up (arXiv 2002.05202), both of a shape and type.
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);

/// The same in operations of LibTorch: for devices and types without loops of our own, and to compare with.
torch::Tensor rms_norm_by_operations(const torch::Tensor& x, const torch::Tensor& weight, double epsilon);
torch::Tensor swiglu_by_operations(const torch::Tensor& gate, const torch::Tensor& up);

}  // namespace mha2mla::model
