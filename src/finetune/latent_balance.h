#pragma once

#include <torch/torch.h>
#include <vector>

#include "model/causal_lm.h"

namespace mha2mla::finetune {

/// Gives every channel of the latents a scale at which AdamW's steps, which are as long for a small weight as for a
/// large one, suit it: its row of kv_a_proj_with_mqa gets the mean norm of the source's key rows, its column of
/// kv_b_proj the inverse factor. Factors are powers of two, so that what the model computes does not change by a bit,
/// nor what undo() gives back of weights that did not learn.
class LatentBalance {
public:
    LatentBalance(model::CausalLm& student, model::CausalLm& teacher, const checkpoint::ModelConfig& config);

    void apply() const { scale(1); }
    void undo() const { scale(-1); }

private:
    struct Layer {
        torch::Tensor down;         // [R + K dr, E]
        torch::Tensor down_bias;    // [R + K dr], undefined where there is none
        torch::Tensor up_LKR;       // of each latent group [G (dn + dv) / L, R / L]
        torch::Tensor exponents_R;  // of two, fp32
    };
    void scale(double sign) const;

    std::vector<Layer> layers_;
};

}  // namespace mha2mla::finetune
