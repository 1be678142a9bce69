#pragma once

#include <torch/torch.h>

namespace mha2mla::finetune {

/// Hidden states and the matrix that makes logits of them.
struct Head {
    torch::Tensor hidden_NE;  ///< normed, one row a scored token
    torch::Tensor matrix_VE;
};

struct VocabularyLossOptions {
    double temperature = 1;                   ///< T, of both distributions in the divergence
    double text_share = 0;                    ///< a, of the cross-entropy with the text
    std::int64_t bytes_at_a_time = 64 << 20;  ///< of the student's logits, and as many of the teacher's
};

/// Sum over the rows of (1 - a) T² KL(softmax(t / T) | softmax(s / T)) - a log softmax(s)[target], s and t the logits
/// of student and teacher (arXiv 1503.02531). targets_N: token ids. Without a teacher (undefined tensors) a must be 1.
/// Differentiable in the student. Logits are made for some rows at a time and never kept: loss and gradient come from
/// the same pass.
torch::Tensor vocabulary_loss(const Head& student, const Head& teacher, const torch::Tensor& targets_N,
                              const VocabularyLossOptions& options);

struct LossAndGradient {
    torch::Tensor loss;         ///< a number
    torch::Tensor gradient_NV;  ///< with respect to the student's logits
};

/// The same of logits in operations of LibTorch: for devices without loops of our own, and to compare with.
LossAndGradient loss_by_operations(const torch::Tensor& student_NV, const torch::Tensor& teacher_NV,
                                   const torch::Tensor& targets_N, const VocabularyLossOptions& options);

}  // namespace mha2mla::finetune
