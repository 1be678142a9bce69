#pragma once

#include <string>
#include <torch/torch.h>
#include <vector>

#include "finetune/options.h"
#include "model/causal_lm.h"

namespace mha2mla::finetune {

struct NamedParameter {
    std::string name;  ///< as in the checkpoint
    torch::Tensor value;
};

/// The parameters that learn, in the model's order. All others are frozen: they get no gradient.
std::vector<NamedParameter> choose_parameters(model::CausalLm& model, Trained trained);

/// Whether a parameter lies in an attention layer.
bool is_of_attention(const std::string& name);

std::vector<torch::Tensor> values_of(const std::vector<NamedParameter>& parameters);

}  // namespace mha2mla::finetune
