#pragma once

#include <torch/torch.h>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/function_ref.h"
#include "model/decoder_layer.h"

namespace mha2mla::calibrate {

/// Carries token windows through a source model one layer at a time, so that only one layer's weights are in memory.
/// The windows' hidden states rest on the CPU and visit the device one by one.
class LayerWalk {
public:
    /// Embeds the windows. Throws Error on an empty window or a token id outside the vocabulary. `source` must outlive
    /// the walk.
    LayerWalk(const checkpoint::Checkpoint& source, const std::vector<std::vector<int>>& windows,
              const model::ModelOptions& options);

    using Visitor = core::FunctionRef<void(model::DecoderLayerImpl& layer, const torch::Tensor& attention_input_BTE)>;
    /// Loads the next layer, shows it to each visitor in turn with its normed inputs, window by window (batch of 1),
    /// and steps over it.
    void step(std::initializer_list<Visitor> visitors);

private:
    const checkpoint::Checkpoint& source_;
    model::ModelOptions options_;
    std::vector<torch::Tensor> hidden_;  // [1, tokens, hidden] a window
    int next_layer_ = 0;
};

}  // namespace mha2mla::calibrate
