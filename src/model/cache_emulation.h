#pragma once

#include <torch/torch.h>

#include "cache/cache_format.h"

namespace mha2mla::model {

/// x as a cache gives it back that keeps each row (the last dimension) in `format`: quantized and de-quantized, or
/// rounded to the format's type. Returns x's type, shape and device. No gradient passes: x must not need one.
torch::Tensor through_cache(const torch::Tensor& x, const cache::RowFormat& format);

}  // namespace mha2mla::model
