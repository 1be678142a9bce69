#pragma once

#include <memory>
#include <torch/torch.h>

#include "checkpoint/checkpoint.h"

namespace mha2mla::model {

enum class AttentionForm { expanded, absorbed };

struct ModelOptions {
    torch::Dtype dtype = torch::kFloat32;
    torch::Device device = torch::kCPU;
    AttentionForm attention = AttentionForm::expanded;
};

/// A whole model as a LibTorch module: the oracle of the native runtime and what fine-tuning trains.
class CausalLmImpl : public torch::nn::Module {
public:
    CausalLmImpl(const checkpoint::Checkpoint& source, const ModelOptions& options);

    /// token_ids [batch, tokens] -> logits [batch, tokens, vocab_size] in the model's dtype.
    torch::Tensor forward(const torch::Tensor& token_ids);

private:
    // embed_tokens, layers, norm, lm_head
};
TORCH_MODULE(CausalLm);

}  // namespace mha2mla::model
