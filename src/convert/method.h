#pragma once

#include <map>
#include <string>
#include <string_view>
#include <torch/torch.h>

#include "calibrate/attention_moments.h"
#include "checkpoint/checkpoint.h"
#include "convert/plan.h"
#include "convert/select.h"
#include "convert/trial.h"

namespace mha2mla::convert {

/// The attention weights of one source layer, fp32, on the device that converts. Biases are undefined where the source
/// has none.
struct SourceAttention {
    torch::Tensor q_weight, q_bias;  ///< [H d, E], [H d]
    torch::Tensor k_weight, k_bias;  ///< [G d, E], [G d]
    torch::Tensor v_weight, v_bias;  ///< [G d, E], [G d]
    torch::Tensor o_weight, o_bias;  ///< [E, H d], [E]
};

SourceAttention load_attention(const checkpoint::Checkpoint& source, int layer, torch::Device device);

/// How much of a layer survived the factorization.
struct LayerFidelity {
    double key_energy = 1;    ///< share of ||W_kc||^2 that the factors reproduce
    double value_energy = 1;  ///< share of ||W_v||^2
};

struct ConvertedAttention {
    std::map<std::string, torch::Tensor> tensors;  ///< by name in the layer: "self_attn.kv_b_proj.weight"
    HeadPairs rope_pairs;                          ///< where the method chooses them from data; else empty
    LayerFidelity fidelity;
};

/// One layer to convert. The plan's target says how wide its parts are.
struct LayerTask {
    const SourceAttention& source;
    const Plan& plan;
    int layer = 0;
    const calibrate::AttentionMoments* moments = nullptr;  ///< where the method asks for them
};

/// A way to turn a layer's attention into MLA.
struct Method {
    std::string_view name;
    bool needs_moments;
    /// Checks and completes the plan's options and lays out its target. Throws Error naming the option.
    void (*lay_out)(Plan& plan);
    /// The options that the method reads, for reports.
    core::OrderedJson (*options)(const ConversionOptions& options);
    /// Whether a plan leaves choices to held-out text. Null: none does.
    bool (*leaves_choices)(const Plan& plan);
    /// What a plan may become where it does; the first is eligible.
    std::vector<Alternative> (*alternatives)(const Plan& plan, const Evidence& evidence, core::Progress& progress,
                                             const std::stop_token& stop);
    ConvertedAttention (*convert)(const LayerTask& task);
};

/// Throws Error naming --method and what there is.
const Method& find_method(std::string_view name);

}  // namespace mha2mla::convert
