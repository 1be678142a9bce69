#pragma once

#include <torch/torch.h>

namespace mha2mla::model {

/// Softmax of causal logits: logits_NQK in fp32, a matrix for each KV head whose rows are tokens, `group` rows a token,
/// as many query heads share the keys. Row r sees the keys up to its token r / group; behind that, probabilities are 0.
/// Returns softmax(scale * logits) in bf16; the logits are used up.
torch::Tensor causal_softmax(const torch::Tensor& logits_NQK, std::int64_t group, double scale);

/// The gradient of such logits, scale * p (g - sum(p g)), from probabilities p and their gradient g, both bf16. In
/// place of the latter.
void causal_softmax_back(const torch::Tensor& probabilities_NQK, const torch::Tensor& gradient_NQK, std::int64_t group,
                         double scale);

}  // namespace mha2mla::model
