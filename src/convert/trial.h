#pragma once

#include <cstddef>
#include <functional>
#include <stop_token>
#include <torch/torch.h>
#include <vector>

#include "calibrate/attention_moments.h"
#include "checkpoint/checkpoint.h"
#include "convert/plan.h"
#include "core/progress.h"
#include "model/decoder_layer.h"

namespace mha2mla::convert {

/// What choices are made from.
struct Evidence {
    const checkpoint::Checkpoint& source;
    std::function<calibrate::AttentionMoments(int layer)> moments;
    std::vector<std::vector<int>> held_out;  ///< windows of tokens that nothing was measured on
    torch::Device device = torch::kCPU;
};

struct ConvertedAttention;

/// A converted layer as a module: the converted tensors, and the source's for the rest.
model::DecoderLayer make_converted_layer(const checkpoint::Checkpoint& source, const checkpoint::ModelConfig& target,
                                         int layer, const ConvertedAttention& converted,
                                         const model::ModelOptions& options);

/// Perplexity of each plan's converted model on the held-out windows. The models are converted in memory and carried
/// through the layers side by side, one layer of each at a time. Throws Cancelled.
std::vector<double> try_plans(const std::vector<Plan>& plans, const Evidence& evidence, core::Progress& progress,
                              const std::stop_token& stop);

/// The plan that does best in that trial; of equals the first. Throws Error where there is more than one plan and no
/// held-out window, and Cancelled.
Plan best_plan(const std::vector<Plan>& plans, const Evidence& evidence, core::Progress& progress,
               const std::stop_token& stop);

}  // namespace mha2mla::convert
