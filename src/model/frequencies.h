#pragma once

#include <cstdint>
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

/// cos and sin of the angles t * frequency of tokens 0, 1, ...: [tokens, heads, pairs], of the frequencies' type.
struct Angles {
    torch::Tensor cosine;
    torch::Tensor sine;
};

/// frequencies [heads, pairs].
Angles angles_of(const torch::Tensor& frequencies, std::int64_t tokens);

}  // namespace mha2mla::model
