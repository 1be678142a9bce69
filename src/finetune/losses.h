#pragma once

#include <cstdint>
#include <memory>

#include "finetune/batches.h"
#include "finetune/options.h"
#include "finetune/teacher.h"
#include "model/causal_lm.h"

namespace mha2mla::finetune {

/// The models of a run. The teacher may be empty where only the text teaches.
struct Models {
    model::CausalLm student = nullptr;
    std::unique_ptr<Teacher> teacher;
};

/// One objective: adds its gradients to those of the student's parameters.
class Loss {
public:
    virtual ~Loss() = default;
    /// Of how many tokens of a window it is a mean.
    virtual std::int64_t count(std::int64_t window_tokens) const = 0;
    /// Adds the gradients of `weight` times the sum of the loss over the tokens that count, and returns that product.
    virtual double accumulate(const MicroBatch& batch, double weight) = 0;
};

/// The models must outlive it.
std::unique_ptr<Loss> make_loss(Objective objective, Models& models, const Options& options);

/// Mean over windows of the mean -log p of a window's tokens after the first. No gradients.
double mean_nll(model::CausalLm& model, const std::vector<std::vector<int>>& windows, torch::Device device);

}  // namespace mha2mla::finetune
