#pragma once

#include <torch/torch.h>
#include <vector>

#include "calibrate/attention_moments.h"
#include "convert/method.h"

// The least-squares problems of the method lsq (docs/conversion.md). All fp64 on the CPU. E hidden width, H query
// heads, G KV heads, d head width, P = d / 2 pairs. Keys of all heads are one vector [G d]; head by head, half-split.

namespace mha2mla::convert {

/// What stands for the lost rotation of a pair.
struct Compensation {
    torch::Tensor factor_HP2;   ///< alpha + i gamma, for the query's un-rotated pairs
    torch::Tensor residual_HP;  ///< what it leaves of the pair's logit variance
};
/// Solves [[aa, ab], [ab, bb]] [alpha, gamma] = [ta, tb] for each head and pair; with `solve` false the constant is 1.
Compensation compensate(const calibrate::PairMoments& moments, bool solve);

/// The one rotary key: C components, each a mix of the KV heads' pairs of one frequency.
struct RotaryComponents {
    std::vector<int> pairs;    ///< [C] frequency of each
    torch::Tensor to_key;      ///< Rk [2C, G d]: keys to components, real parts then imaginary parts
    torch::Tensor from_key;    ///< Rec [G d, 2C]: components back to keys
    torch::Tensor factor_HC2;  ///< of the queries
    double lost = 0;           ///< what the components that are not kept cost, by the first-order model
};
struct RotaryProblem {
    torch::Tensor key_covariance;  ///< [G d, G d]
    torch::Tensor weight_GP;       ///< lambda: sum over the head's queries of beta E|q|^2
    torch::Tensor kept_loss_P;     ///< rho: share of a frequency's logit variance that compensation leaves
    torch::Tensor lost_P;          ///< what a frequency costs at the output when none of its rotation is kept
    std::int64_t query_heads = 0;
    bool mix_heads = true;
};
/// Keeps the `count` components whose loss would cost most.
RotaryComponents choose_components(const RotaryProblem& problem, std::int64_t count);
/// Keeps one component of each of these frequencies, the one whose loss would cost most.
RotaryComponents components_of(const RotaryProblem& problem, const std::vector<int>& pairs);

/// How errors of keys or values count: a block-diagonal metric, taken apart once.
struct Metric {
    torch::Tensor root_Gdd;     ///< symmetric square root
    torch::Tensor inverse_Gdd;  ///< of the root
};
/// Of symmetric positive blocks [G, d, d]. Eigenvalues below 1e-5 of the largest of their block are raised to it.
Metric make_metric(const torch::Tensor& metric_Gdd);

/// Of symmetric X [n, n] >= 0: a root with root rootᵀ = X, [n, n]. Cholesky's: eigenvectors of E x E take minutes.
torch::Tensor root_of(const torch::Tensor& covariance);

/// down [R, E], key_up [G d, R], value_up [G d, R]: the best joint factors of keys [G d, E] and values [G d, E] where
/// errors count by their metrics and inputs by their covariance [E, E], given by a root of it.
struct WeightedFactors {
    torch::Tensor down, key_up, value_up;
    double lost = 0;  ///< share of the weighted energy that no factors of this rank keep
};
struct WeightedProblem {
    torch::Tensor keys, values;
    Metric key_metric, value_metric;
    torch::Tensor input_root;
};
WeightedFactors factorize(const WeightedProblem& problem, std::int64_t rank);

/// Expected squared error of the layer's output after factorize() to each rank, as the softmax weighs the inputs: Ck
/// those of the keys and Cv those of the values, [E, E]. Element R is for rank R, from 0 to the largest.
torch::Tensor errors_by_rank(const WeightedProblem& problem, const torch::Tensor& key_inputs,
                             const torch::Tensor& value_inputs);

}  // namespace mha2mla::convert
