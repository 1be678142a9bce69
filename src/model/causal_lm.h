#pragma once

#include <torch/torch.h>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/decoder_layer.h"
#include "model/layers.h"
#include "model/options.h"

namespace mha2mla::model {

/// Embedding, decoder layers and final norm: everything under "model." in a checkpoint.
class DecoderImpl : public torch::nn::Module {
public:
    DecoderImpl(const Weights& weights, const checkpoint::ModelConfig& config);

    /// token_ids [batch, tokens] -> normed hidden states [batch, tokens, hidden].
    torch::Tensor forward(const torch::Tensor& token_ids);

    std::vector<DecoderLayer>& layers() { return layers_; }
    RmsNorm& norm() { return norm_; }

    Embedding embed_tokens = nullptr;

private:
    std::vector<DecoderLayer> layers_;
    RmsNorm norm_ = nullptr;
    bool recompute_;
};
TORCH_MODULE(Decoder);

/// A whole model as a LibTorch module: the oracle of the native runtime and what fine-tuning trains. Its parameters
/// carry the names of the checkpoint's tensors. Differentiable; wrap calls in torch::NoGradGuard where no gradient is
/// wanted.
class CausalLmImpl : public torch::nn::Module {
public:
    CausalLmImpl(const checkpoint::Checkpoint& source, const ModelOptions& options);
    CausalLmImpl(const Weights& weights, const checkpoint::ModelConfig& config);

    /// token_ids [batch, tokens] -> logits [batch, tokens, vocab_size] in the model's dtype.
    torch::Tensor forward(const torch::Tensor& token_ids) {
        return torch::linear(decoder()(token_ids), output_matrix());
    }

    /// Its two parts: from tokens to hidden states, and the matrix [vocab_size, hidden] that makes logits of them.
    Decoder& decoder() { return model_; }
    const torch::Tensor& output_matrix() const {
        return lm_head_.is_empty() ? model_->embed_tokens->weight : lm_head_->weight;
    }

private:
    Decoder model_ = nullptr;
    Linear lm_head_ = nullptr;  // empty where the embedding serves as output matrix
};
TORCH_MODULE(CausalLm);

}  // namespace mha2mla::model
