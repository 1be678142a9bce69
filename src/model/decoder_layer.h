#pragma once

#include <memory>
#include <torch/torch.h>

#include "model/attention.h"
#include "model/layers.h"

namespace mha2mla::model {

/// One layer of a Llama-style decoder with either kind of attention.
class DecoderLayerImpl : public torch::nn::Module {
public:
    DecoderLayerImpl(const Weights& weights, const checkpoint::ModelConfig& config, int layer);

    /// x_BTE -> [batch, tokens, hidden]
    torch::Tensor forward(const torch::Tensor& x_BTE) { return feed_forward(attend(x_BTE)); }
    /// Its two steps: x + attention(norm x), then + mlp(norm ·).
    torch::Tensor attend(const torch::Tensor& x_BTE) { return x_BTE + self_attn_->forward(attention_input(x_BTE)); }
    torch::Tensor feed_forward(const torch::Tensor& x_BTE) { return x_BTE + mlp_(post_attention_layernorm_(x_BTE)); }
    /// What the attention of this layer sees: the normed inputs.
    torch::Tensor attention_input(const torch::Tensor& x_BTE) { return input_layernorm_(x_BTE); }
    RmsNorm& input_norm() { return input_layernorm_; }
    Attention& attention() { return *self_attn_; }

private:
    RmsNorm input_layernorm_ = nullptr;
    std::shared_ptr<Attention> self_attn_;
    RmsNorm post_attention_layernorm_ = nullptr;
    Mlp mlp_ = nullptr;
};
TORCH_MODULE(DecoderLayer);

/// Layer `index` of a checkpoint alone, for work that must hold one layer at a time.
DecoderLayer load_layer(const checkpoint::Checkpoint& source, int index, const ModelOptions& options);

}  // namespace mha2mla::model
