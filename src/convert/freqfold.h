#pragma once

#include <functional>
#include <stop_token>
#include <torch/torch.h>
#include <vector>

#include "calibrate/attention_moments.h"
#include "checkpoint/checkpoint.h"
#include "convert/plan.h"
#include "core/progress.h"

namespace mha2mla::convert {

/// True where the method transmla leaves its FreqFold to held-out text (--freqfold auto).
bool chooses_freqfold(const ConversionOptions& options);

/// Takes the last eighth of the windows, at least one, for the choice. Throws Error where nothing would be left.
std::vector<std::vector<int>> hold_out(std::vector<std::vector<int>>& windows);

/// What a choice is made from.
struct FreqfoldTrial {
    const checkpoint::Checkpoint& source;
    const Plan& plan;
    const std::vector<std::vector<int>>& windows;                   ///< held out
    std::function<calibrate::AttentionMoments(int layer)> moments;  ///< asked once a layer, in order
    torch::Device device;
};

/// The FreqFold, of those that double from the smallest, whose converted model predicts the windows best. All of them
/// are converted in memory and carried through the layers side by side: one layer of each at a time. Throws Cancelled.
int best_freqfold(const FreqfoldTrial& trial, core::Progress& progress, const std::stop_token& stop);

}  // namespace mha2mla::convert
