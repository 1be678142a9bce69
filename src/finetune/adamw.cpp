#include "finetune/adamw.h"

#include <ATen/ops/_fused_adamw.h>
#include <cmath>
#include <utility>

namespace mha2mla::finetune {

AdamW::AdamW(std::vector<torch::Tensor> parameters, const AdamWOptions& options)
    : options_(options), parameters_(std::move(parameters)) {
    for (const auto& parameter : parameters_) {
        first_.push_back(torch::zeros_like(parameter));
        second_.push_back(torch::zeros_like(parameter));
    }
}

void AdamW::step(double learning_rate) {
    const torch::NoGradGuard no_gradients;
    std::vector<torch::Tensor> parameters, gradients, first, second, steps;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        if (!parameters_[i].grad().defined()) continue;
        parameters.push_back(parameters_[i]);
        gradients.push_back(parameters_[i].grad());
        first.push_back(first_[i]);
        second.push_back(second_[i]);
        const auto count = torch::TensorOptions(torch::kFloat32).device(parameters_[i].device());
        steps.push_back(torch::full({}, static_cast<double>(steps_ + 1), count));  // this one included
    }
    ++steps_;
    if (parameters.empty()) return;
    at::_fused_adamw_(parameters, gradients, first, second, {}, steps, learning_rate, options_.beta1, options_.beta2,
                      options_.weight_decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
}

double squared_gradient_norm(const std::vector<torch::Tensor>& parameters) {
    double sum = 0;
    for (const auto& parameter : parameters) {
        if (parameter.grad().defined()) sum += std::pow(parameter.grad().norm(2, torch::kFloat64).item<double>(), 2);
    }
    return sum;
}

void scale_gradients(const std::vector<torch::Tensor>& parameters, double factor) {
    const torch::NoGradGuard no_gradients;
    for (const auto& parameter : parameters) {
        if (parameter.grad().defined()) parameter.grad().mul_(factor);
    }
}

}  // namespace mha2mla::finetune
