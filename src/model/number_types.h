#pragma once

#include <torch/torch.h>

#include "core/error.h"

namespace mha2mla::model {

/// Calls task<Number, Real>() for the type of a model's numbers and that of their sums.
template <typename Task>
void for_number_type(torch::Dtype dtype, const Task& task) {
    switch (dtype) {
        case torch::kFloat64: return task.template operator()<double, double>();
        case torch::kFloat32: return task.template operator()<float, float>();
        case torch::kBFloat16: return task.template operator()<c10::BFloat16, float>();
        default: core::invariant(false, "models are bf16, fp32 or fp64");
    }
}

}  // namespace mha2mla::model
