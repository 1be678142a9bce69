#pragma once

#include <cstdint>
#include <torch/torch.h>

#include "model/weights.h"

namespace mha2mla::model {

struct LinearShape {
    std::int64_t in = 0;
    std::int64_t out = 0;
    bool bias = false;
};

/// y = x Wᵀ + b with W [out, in]. Unlike torch::nn::Linear it never draws random weights. Under an Autocast, a weight
/// that does not learn is kept a second time, rounded.
class LinearImpl : public torch::nn::Module {
public:
    LinearImpl(const Weights& weights, const LinearShape& shape);

    torch::Tensor forward(const torch::Tensor& x) { return torch::linear(x, factor(), bias); }

    torch::Tensor weight;
    torch::Tensor bias;  ///< undefined where there is none

    /// The weight as products take it.
    const torch::Tensor& factor();

private:
    torch::Tensor rounded_;  // of a frozen weight
    std::uint32_t rounded_version_ = 0;
};
TORCH_MODULE(Linear);

/// Token embeddings [vocabulary, hidden].
class EmbeddingImpl : public torch::nn::Module {
public:
    EmbeddingImpl(const Weights& weights, std::int64_t vocab_size, std::int64_t hidden_size);

    torch::Tensor forward(const torch::Tensor& token_ids) { return torch::embedding(weight, token_ids); }

    torch::Tensor weight;
};
TORCH_MODULE(Embedding);

/// rms_norm of layer_loops.h.
class RmsNormImpl : public torch::nn::Module {
public:
    RmsNormImpl(const Weights& weights, std::int64_t size, double epsilon);

    torch::Tensor forward(const torch::Tensor& x);

    torch::Tensor weight;

private:
    double epsilon_;
};
TORCH_MODULE(RmsNorm);

/// SwiGLU: down(silu(gate x) * up x) (arXiv 2002.05202).
class MlpImpl : public torch::nn::Module {
public:
    MlpImpl(const Weights& weights, const checkpoint::ModelConfig& config);

    torch::Tensor forward(const torch::Tensor& x);

private:
    Linear gate_proj_ = nullptr;
    Linear up_proj_ = nullptr;
    Linear down_proj_ = nullptr;
};
TORCH_MODULE(Mlp);

}  // namespace mha2mla::model
