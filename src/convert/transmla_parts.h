#pragma once

#include <torch/torch.h>
#include <vector>

// The steps of the method transmla (TransMLA, arXiv 2502.07864; docs/conversion.md), after the public implementation
// where paper and code differ. All fp64 on the CPU. E hidden width, G KV heads, d head width, P = d / 2 pairs. Keys of
// all heads are one vector [G d]; head by head, half-split.

namespace mha2mla::convert {

/// A linear map of the layer's input, of which statistics know mean and covariance.
struct Activation {
    torch::Tensor weight;  ///< [n, E]
    torch::Tensor bias;    ///< [n]
};
struct InputStatistics {
    torch::Tensor mean;        ///< [E]
    torch::Tensor covariance;  ///< [E, E]
};
/// E[y yᵀ] of y = W x + b, [n, n].
torch::Tensor second_moment(const Activation& activation, const InputStatistics& input);

/// How many components rotate (C), and how many adjacent frequencies count as one (m).
struct FoldShape {
    std::int64_t kv_heads = 0;
    std::int64_t components = 0;  ///< divides P, or is a multiple of it up to G P
    std::int64_t freqfold = 1;    ///< divides P; a multiple of P / C where that is above 1
};

/// Step from one frequency that rotates to the next: P / C, at least 1.
int frequency_step(int pairs, int components);
/// The pairs whose frequencies the C components turn by: 0, step, 2 step, ..., over again where C is above P.
std::vector<int> folded_pairs(int pairs, int components);

/// An orthogonal change of basis of the keys in two parts.
struct KeyRotation {
    torch::Tensor rotary;  ///< [2C, G d]: real parts, then imaginary parts, in the order of folded_pairs
    torch::Tensor still;   ///< [G d - 2C, G d]: what gives up its rotation
};
/// RoRoPE with FreqFold (section 4.2): m adjacent frequencies of all heads form a block. In each the principal axes of
/// the keys' second moment, taken over real and imaginary parts alike, replace the heads' pairs; the leading ones
/// rotate. With m = 1 the axes commute with the rotation, so nothing is lost but what does not rotate any more.
KeyRotation rotate_keys(const torch::Tensor& key_moment, const FoldShape& shape);

/// One latent for keys and values: keys = key_up latent, values = value_up latent, latent = down x + bias.
struct BalancedFactors {
    torch::Tensor down, bias;        ///< [R, E], [R]
    torch::Tensor key_up, value_up;  ///< [keys, R], [values, R]
    double ratio = 1;                ///< what the keys were divided by
};
struct BalancedProblem {
    Activation keys, values;
    InputStatistics input;
    double balance = 1;                 ///< the keys' mean norm after balancing, in those of the values
    std::int64_t unweighed_values = 0;  ///< the first so many values do not count in their mean norm
};
/// Balanced principal components (section 4.3): keys divided by a ratio that makes their columns as long as those of
/// the values, then the leading axes of the second moment of both.
BalancedFactors balance_and_factorize(const BalancedProblem& problem, std::int64_t rank);

}  // namespace mha2mla::convert
