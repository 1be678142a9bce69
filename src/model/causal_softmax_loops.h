#pragma once

#include <torch/torch.h>

namespace mha2mla::model {

/// Which keys the rows of a matrix see: `group` rows a token, as many query heads share the keys, and each sees those
/// up to its own token.
struct CausalRows {
    std::int64_t first_token = 0;  ///< that of the first row
    std::int64_t group = 1;
};

/// Softmax of causal logits [rows, keys] in fp32; behind the keys that a row sees, probabilities are 0. Returns
/// softmax(scale * logits) in bf16; the logits are used up.
torch::Tensor causal_softmax(const torch::Tensor& logits_QK, const CausalRows& rows, double scale);

/// The gradient of such logits, scale * p (g - sum(p g)), from probabilities p and their gradient g, both bf16. In
/// place of the latter.
void causal_softmax_back(const torch::Tensor& probabilities_QK, const torch::Tensor& gradient_QK,
                         const CausalRows& rows, double scale);

}  // namespace mha2mla::model
