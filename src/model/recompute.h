#pragma once

#include <functional>
#include <torch/torch.h>

namespace mha2mla::model {

/// f(x), of which only x is kept for the backward pass, where f is computed again (activation checkpointing, arXiv
/// 1604.06174). f must give the same numbers each time. Gradients reach x and the parameters that f uses.
torch::Tensor recomputed(std::function<torch::Tensor(const torch::Tensor& x)> f, const torch::Tensor& x);

}  // namespace mha2mla::model
