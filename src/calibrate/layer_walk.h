#pragma once

#include <initializer_list>
#include <stop_token>
#include <torch/torch.h>
#include <utility>
#include <vector>

#include "calibrate/hidden_states.h"
#include "checkpoint/checkpoint.h"
#include "core/function_ref.h"
#include "model/attention.h"
#include "model/options.h"

namespace mha2mla::calibrate {

/// The embeddings of a window: [1, tokens, hidden], fp32, on the CPU. Reads only the rows that occur: the matrix can be
/// larger than a layer. Throws Error on an empty window or a token id outside the vocabulary.
torch::Tensor embed_tokens(const checkpoint::Checkpoint& source, const std::vector<int>& tokens);

/// Of the residual stream h after a layer's attention: 1 / |h|², summed over tokens.
struct InversePower {
    double sum = 0;
    double tokens = 0;
};

/// Carries token windows through a source model one layer at a time, so that only one layer's weights are in memory.
/// The windows' hidden states rest (HiddenStates) and visit the device one by one.
class LayerWalk {
public:
    /// Embeds the windows. Throws Error on an empty window or a token id outside the vocabulary. `source` must outlive
    /// the walk.
    LayerWalk(const checkpoint::Checkpoint& source, const std::vector<std::vector<int>>& windows,
              const model::ModelOptions& options, const RestOptions& rest = {});
    /// A walk that goes on: `hidden` are the inputs of `next_layer`.
    LayerWalk(const checkpoint::Checkpoint& source, int next_layer, HiddenStates hidden,
              const model::ModelOptions& options);

    using Visitor = core::FunctionRef<void(model::GqaAttentionImpl& attention, const torch::Tensor& x_BTE)>;
    /// Loads the next layer, shows its attention to each visitor in turn with the normed inputs, window by window
    /// (batch of 1), and steps over the layer. Throws Cancelled at a stop request.
    InversePower step(std::initializer_list<Visitor> visitors, const std::stop_token& stop = {});

    int next_layer() const { return next_layer_; }
    /// The inputs of the next layer.
    const HiddenStates& hidden() const { return hidden_; }
    /// The same, to go on with; the walk ends.
    HiddenStates take_hidden() { return std::move(hidden_); }

private:
    const checkpoint::Checkpoint& source_;
    model::ModelOptions options_;
    HiddenStates hidden_;
    int next_layer_ = 0;
};

}  // namespace mha2mla::calibrate
