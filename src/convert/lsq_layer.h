#pragma once

#include "convert/lsq_parts.h"
#include "convert/method.h"

namespace mha2mla::convert {

/// The least-squares problems of one layer (docs/conversion.md, "The method lsq"). fp64 on the CPU.
struct LsqLayer {
    torch::Tensor keys, values;          ///< [G d, E]
    torch::Tensor mean_key, mean_value;  ///< [G d], with their biases
    torch::Tensor input_mean;            ///< mu [E]
    bool latent_is_centred = true;       ///< as of the plan
    Compensation compensation;
    RotaryProblem rotary;
    WeightedProblem latent;  ///< of whole keys: before rotary components are taken out
};
LsqLayer make_lsq_layer(const LayerTask& task);

/// Whether the constants of keys and values are biases of the projections; else the latent holds them.
bool latent_is_centred(const Plan& plan);

/// The rotary components of layer `index`: of the frequencies that the plan names, else as many as it wants.
RotaryComponents rotary_components(const LsqLayer& layer, const Plan& plan, int index);

/// What the keys are without their rotary components: [G d, E].
torch::Tensor residual_keys(const LsqLayer& layer, const RotaryComponents& rotary);

}  // namespace mha2mla::convert
