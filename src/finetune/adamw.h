#pragma once

#include <cstdint>
#include <torch/torch.h>
#include <vector>

namespace mha2mla::finetune {

struct AdamWOptions {
    double beta1 = 0.9;
    double beta2 = 0.95;
    double epsilon = 1e-8;
    double weight_decay = 0;
};

/// AdamW (arXiv 1711.05101) over parameters that it does not own, with LibTorch's fused step. Its state is open, so
/// that a snapshot can hold all of it.
class AdamW {
public:
    AdamW(std::vector<torch::Tensor> parameters, const AdamWOptions& options);

    /// One step along the parameters' gradients; a parameter that has none stays.
    void step(double learning_rate);

    const std::vector<torch::Tensor>& parameters() const { return parameters_; }
    std::vector<torch::Tensor>& first_moments() { return first_; }
    std::vector<torch::Tensor>& second_moments() { return second_; }
    std::int64_t steps() const { return steps_; }
    void set_steps(std::int64_t steps) { steps_ = steps; }

private:
    AdamWOptions options_;
    std::vector<torch::Tensor> parameters_;
    std::vector<torch::Tensor> first_;
    std::vector<torch::Tensor> second_;
    std::int64_t steps_ = 0;
};

/// The square of the Euclidean norm of all gradients together, in fp64.
double squared_gradient_norm(const std::vector<torch::Tensor>& parameters);

/// Multiplies all gradients.
void scale_gradients(const std::vector<torch::Tensor>& parameters, double factor);

}  // namespace mha2mla::finetune
