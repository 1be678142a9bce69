#include "model/layers.h"

#include "model/autocast.h"
#include "model/layer_loops.h"

namespace mha2mla::model {

LinearImpl::LinearImpl(const Weights& weights, const LinearShape& shape)
    : weight(register_parameter("weight", weights.load("weight", {shape.out, shape.in}))) {
    if (shape.bias) bias = register_parameter("bias", weights.load("bias", {shape.out}));
}

// LibTorch remembers for a while what it rounded of weights that learn. Those that do not are rounded here, once.
const torch::Tensor& LinearImpl::factor() {
    if (weight.requires_grad() || !rounds_products(weight.device())) return weight;
    if (!rounded_.defined() || rounded_version_ != weight._version()) {
        rounded_ = rounded_factor(weight);
        rounded_version_ = static_cast<std::uint32_t>(weight._version());
    }
    return rounded_;
}

EmbeddingImpl::EmbeddingImpl(const Weights& weights, std::int64_t vocab_size, std::int64_t hidden_size)
    : weight(register_parameter("weight", weights.load("weight", {vocab_size, hidden_size}))) {}

RmsNormImpl::RmsNormImpl(const Weights& weights, std::int64_t size, double epsilon)
    : weight(register_parameter("weight", weights.load("weight", {size}))), epsilon_(epsilon) {}

torch::Tensor RmsNormImpl::forward(const torch::Tensor& x) { return rms_norm(x, weight, epsilon_); }

MlpImpl::MlpImpl(const Weights& weights, const checkpoint::ModelConfig& config) {
    const LinearShape widen{config.hidden_size, config.intermediate_size, config.mlp_bias};
    const LinearShape narrow{config.intermediate_size, config.hidden_size, config.mlp_bias};
    gate_proj_ = register_module("gate_proj", Linear(weights.under("gate_proj"), widen));
    up_proj_ = register_module("up_proj", Linear(weights.under("up_proj"), widen));
    down_proj_ = register_module("down_proj", Linear(weights.under("down_proj"), narrow));
}

torch::Tensor MlpImpl::forward(const torch::Tensor& x) { return down_proj_(swiglu(gate_proj_(x), up_proj_(x))); }

}  // namespace mha2mla::model
