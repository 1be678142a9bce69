#pragma once

#include <torch/torch.h>
#include <vector>

#include "checkpoint/model_config.h"
#include "model/options.h"

namespace mha2mla::model {

/// Frequencies of the pairs that each of several heads rotates: [heads, pairs of a head], in the precise type.
torch::Tensor pair_frequencies(const checkpoint::ModelConfig& config, const std::vector<std::vector<int>>& pairs,
                               const ModelOptions& options);

/// Frequencies of all pairs of a head: [1, P].
torch::Tensor all_frequencies(const checkpoint::ModelConfig& config, const ModelOptions& options);

}  // namespace mha2mla::model
