#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <torch/torch.h>
#include <vector>

#include "calibrate/attention_moments.h"
#include "calibrate/hidden_states.h"
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
    calibrate::RestOptions rest = {};  ///< of the held-out windows' hidden states
};

/// What a plan may become.
struct Alternative {
    std::string name;  ///< of what was decided: "sizes by layer"
    Plan plan;
    bool eligible = true;  ///< else only to compare with
};

/// What a trial on held-out windows found: perplexities of the source and of each alternative's converted model.
struct Trial {
    std::int64_t windows = 0;
    double source = 0;
    struct Result {
        std::string name;
        double perplexity = 0;
        bool chosen = false;
    };
    std::vector<Result> alternatives;

    core::OrderedJson to_json() const;
};

struct ConvertedAttention;

/// A converted layer as a module: the converted tensors, and the source's for the rest.
model::DecoderLayer make_converted_layer(const checkpoint::Checkpoint& source, const checkpoint::ModelConfig& target,
                                         int layer, const ConvertedAttention& converted,
                                         const model::ModelOptions& options);

/// The models are converted in memory and carried through the layers side by side, one layer of each at a time. None is
/// chosen yet. Throws Cancelled.
Trial try_alternatives(const std::vector<Alternative>& alternatives, const Evidence& evidence, core::Progress& progress,
                       const std::stop_token& stop);

struct Choice {
    Plan plan;
    std::optional<Trial> trial;  ///< where there was more than one alternative
};
/// The eligible alternative that does best in a trial; of equals the first. Throws Error where there is more than one
/// and no held-out window, and Cancelled.
Choice choose(const std::vector<Alternative>& alternatives, const Evidence& evidence, core::Progress& progress,
              const std::stop_token& stop);

}  // namespace mha2mla::convert
