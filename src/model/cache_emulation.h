#pragma once

#include <torch/torch.h>

#include "cache/cache_format.h"

namespace mha2mla::model {

/// x [batch, tokens, ...] as a cache gives it back that keeps each row (the last dimension) in `format`: rounded to the
/// format's type, then quantized and de-quantized. Where groups are channels, each full page of tokens is, and the
/// tokens after the last stay numbers. Returns x's type, shape and device. Gradients pass as if nothing were rounded
/// (straight-through, arXiv 1308.3432).
torch::Tensor through_cache(const torch::Tensor& x, const cache::RowFormat& format);

}  // namespace mha2mla::model
