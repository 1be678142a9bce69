#pragma once

#include <stop_token>
#include <torch/torch.h>

#include "calibrate/layer_walk.h"

namespace mha2mla::calibrate {

/// How strongly each rotary pair of a layer speaks: what 2-norm selection ranks by (arXiv 2502.14837 section 3.1).
/// Taken before rotation, which does not change a pair's norm.
struct PairNorms {
    torch::Tensor query_HP;  ///< mean over tokens of ||q_h[i, i + P]||, fp64 on the CPU
    torch::Tensor key_GP;    ///< the same of keys
};

/// Sums norms token by token.
class PairNormSum {
public:
    /// q_BTHd, k_BTGd: queries and keys before rotation.
    void add(const torch::Tensor& q_BTHd, const torch::Tensor& k_BTGd);
    PairNorms mean() const;

private:
    torch::Tensor query_;
    torch::Tensor key_;
    std::int64_t tokens_ = 0;
};

/// The norms of the walk's next layer, over all its windows; the walk steps over that layer. Throws Cancelled at a stop
/// request.
PairNorms measure_pair_norms(LayerWalk& walk, const std::stop_token& stop);

}  // namespace mha2mla::calibrate
