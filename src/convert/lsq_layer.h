#pragma once

#include "convert/lsq_parts.h"
#include "convert/method.h"

namespace mha2mla::convert {

/// The least-squares problems of one layer (docs/conversion.md, "The method lsq"). fp64 on the CPU.
struct LsqLayer {
    torch::Tensor keys, values;          ///< [G d, E]
    torch::Tensor mean_key, mean_value;  ///< [G d], with their biases
    torch::Tensor input_mean;            ///< mu [E]
    Compensation compensation;
    RotaryProblem rotary;
    WeightedProblem latent;  ///< of whole keys: before rotary components are taken out
};
LsqLayer make_lsq_layer(const LayerTask& task);

/// What the keys are without their rotary components: [G d, E].
torch::Tensor residual_keys(const LsqLayer& layer, const RotaryComponents& rotary);

/// fp64 on the CPU.
torch::Tensor precise(const torch::Tensor& tensor);
/// The bias in fp64, zeros where there is none.
torch::Tensor bias_or_zero(const torch::Tensor& bias, std::int64_t size);

}  // namespace mha2mla::convert
