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

/// Turns pair i of token t by t * frequency. `x` [batch, tokens, heads, 2p] is half-split: pair i is (x[i], x[i + p]).
/// `frequencies` [heads or 1, p]. Returns x's type; angles and products are computed in the frequencies' type.
/// Source: RoFormer (arXiv 2104.09864) section 3.2.
torch::Tensor rotate_pairs(const torch::Tensor& x, const torch::Tensor& frequencies);

/// Multiplies pair i of head h by the complex number factor[h, i]. `x` [..., heads, 2p], half-split; `factor` [heads,
/// p, 2] (re, im).
torch::Tensor scale_pairs(const torch::Tensor& x, const torch::Tensor& factor);

}  // namespace mha2mla::model
