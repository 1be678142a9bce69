#pragma once

#include "convert/method.h"

namespace mha2mla::convert {

/// MHA2MLA (arXiv 2502.14837): the chosen pairs of each KV head become its rotary key, the other key rows and the
/// values one low-rank latent. No weight is compensated for the lost rotation. Biases are carried exactly: an
/// un-rotated key bias adds the same logit to every key and cancels in the softmax, a value bias passes the softmax
/// (weights sum to 1) into `o_proj.bias`.
ConvertedAttention convert_mha2mla(const LayerTask& task);
void lay_out_mha2mla(Plan& plan);
core::OrderedJson options_of_mha2mla(const ConversionOptions& options);

}  // namespace mha2mla::convert
