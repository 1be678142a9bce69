#pragma once

#include <torch/torch.h>

#include "finetune/vocabulary_loss.h"

namespace mha2mla::finetune {

/// Turns the student's logits into the gradient of vocabulary_loss with respect to them, in place, and returns the
/// loss. logits_NV, teacher_NV of one type, contiguous and in the processor's memory; teacher_NV is undefined where
/// text_share is 1. targets_N: token ids. Computes in fp32 (fp64 for fp64), a row at a time, with or without use for
/// the gradient.
double logits_to_gradient(const torch::Tensor& logits_NV, const torch::Tensor& teacher_NV,
                          const torch::Tensor& targets_N, const VocabularyLossOptions& options);

}  // namespace mha2mla::finetune
