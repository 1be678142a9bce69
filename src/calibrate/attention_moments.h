#pragma once

#include <cstdint>
#include <stop_token>
#include <torch/torch.h>

#include "calibrate/layer_walk.h"
#include "parallel/communicator.h"

namespace mha2mla::calibrate {

// Statistics of docs/conversion.md, "The method lsq". E hidden width, H query heads, G KV heads, d head width, P = d /
// 2 rotary pairs. All fp64 on the CPU. The attention weight of the first `sinks` positions counts as zero.

/// Second moments of what each rotary pair adds to a logit, weighed by the attention p of a query and centred over its
/// keys: with z = conj(q) k of the pair before rotation, a = Re z, b = Im z, and t its rotated contribution. [H, P]
/// each.
struct PairMoments {
    torch::Tensor aa, ab, bb, ta, tb, tt;
};

/// What the conversion of one layer must know of its inputs x (normed).
struct AttentionMoments {
    torch::Tensor input_mean;        ///< mu [E]: mean of x
    torch::Tensor token_covariance;  ///< Cc [E, E] of x - mu
    torch::Tensor value_covariance;  ///< Cv [E, E]: E[y yᵀ], y = sum of p (x - mu) over the keys of a query
    torch::Tensor key_covariance;    ///< Ck [E, E]: E[sum of p (x - mu)(x - mu)ᵀ] - Cv
    torch::Tensor query_gram;        ///< Cq [H, d, d]: E[q qᵀ] before RoPE
    torch::Tensor logit_cost;        ///< beta [H]: E[sum of p ||W_o (v - o)||^2], what a squared logit error costs
    PairMoments pairs;
    /// [1]: mean of 1 / |h|², h the residual stream after the attention. The layers above see an error relative to h
    /// (they begin with an RMS norm), so this makes errors of different layers comparable.
    torch::Tensor inverse_power;
};

struct MomentOptions {
    int sinks = 4;             ///< first positions that are served exactly and do not count
    int queries = 112;         ///< of each window, drawn at random
    int first_query = 16;      ///< position of the first that may be drawn
    bool centred_keys = true;  ///< pairs see k - mean(k): the mean keeps its rotation elsewhere
    std::uint64_t seed = 0;    ///< of the draw
};

/// Tokens that a window must have for its queries to see keys that count.
int shortest_window(const MomentOptions& options);

/// The moments of the walk's next layer over all its windows, and over those of all processes: each walks the windows
/// of its share (parallel::for_each_share), at least one. The walk steps over that layer. Throws Cancelled at a stop
/// request.
AttentionMoments measure_attention_moments(LayerWalk& walk, const MomentOptions& options, const std::stop_token& stop,
                                           const parallel::Communicator& processes = parallel::alone());

}  // namespace mha2mla::calibrate
