#pragma once

#include <memory>
#include <stop_token>
#include <torch/torch.h>
#include <vector>

#include "calibrate/layer_walk.h"
#include "convert/method.h"

namespace mha2mla::convert {

/// Fits the output matrix of each converted layer anew, in order, on what the layers converted before it hand on:
///
///     min over W, b of  sum of |W z + b - y|² + lambda sum over i of S_ii |W_i - W0_i|²
///
/// over the calibration's tokens, sinks left out. z [H dv] is what the converted heads hand to the output matrix, y [E]
/// what the source's stream is after its attention less what the converted stream was before, S the sum of z zᵀ about
/// the mean, W0 the output matrix of the closed form (docs/conversion.md, "Refit"). So the layer also makes up for some
/// of what earlier layers lost.
class OutputRefit {
public:
    OutputRefit(const checkpoint::Checkpoint& source, const std::vector<std::vector<int>>& windows,
                torch::Device device, const calibrate::RestOptions& rest);

    /// Replaces o_proj among the tensors of the next layer. Throws Cancelled.
    void apply(const checkpoint::ModelConfig& target, int layer, ConvertedAttention& converted,
               const std::stop_token& stop);

private:
    const checkpoint::Checkpoint& source_;
    model::ModelOptions options_;
    calibrate::HiddenStates source_hidden_;
    calibrate::HiddenStates converted_hidden_;
};

/// The solution of the problem above from sums over tokens. Public for its test.
struct OutputSums {
    torch::Tensor zz, zy, z, y;  ///< fp64: [D, D], [D, E], [D], [E]
    double tokens = 0;
    void add(const torch::Tensor& z_TD, const torch::Tensor& y_TE);
};
struct Output {
    torch::Tensor weight;  ///< [E, D]
    torch::Tensor bias;    ///< [E]
};
Output fit_output(const OutputSums& sums, const torch::Tensor& weight, double lambda);

}  // namespace mha2mla::convert
