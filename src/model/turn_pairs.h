#pragma once

#include <torch/torch.h>

namespace mha2mla::model {

/// Which pairs of a head are taken, and how they turn. Row r of R serves heads r H/R to (r + 1) H/R - 1.
struct PairChoice {
    torch::Tensor pairs;  ///< [R, p], int64: pair i is the head's pair pairs[r, i] < d/2; undefined: all, in order
    torch::Tensor frequencies;  ///< [R, p]: pair i of token t is turned by t * frequency; undefined: not at all
};

/// y[.., h, i] = x[.., h, pairs[h, i]] * factor[h, i] * exp(j t frequencies[h, i]), pairs taken as complex numbers.
/// x [batch, tokens, H, d] and y [batch, tokens, H, 2p], of x's type, are half-split: pair i of d/2 is (x[i], x[i +
/// d/2]). factor [H, p, 2] (re, im) may be undefined. Computed in fp32 at least, on the CPU in one pass over x.
/// Has gradients for x and factor, once. Throws std::logic_error where sizes do not fit.
/// Source: RoFormer (arXiv 2104.09864) section 3.2.
torch::Tensor turn_pairs(const torch::Tensor& x, const PairChoice& choice, const torch::Tensor& factor = {});

/// The same of LibTorch's own operations, for any device.
torch::Tensor turn_pairs_by_operations(const torch::Tensor& x, const PairChoice& choice, const torch::Tensor& factor);

}  // namespace mha2mla::model
