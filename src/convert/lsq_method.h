#pragma once

#include "convert/method.h"

namespace mha2mla::convert {

/// Our method, docs/conversion.md section "lsq": every choice solves a least-squares problem in one unit, the expected
/// squared error of the layer's output. Closed form, calibrated by AttentionMoments.
ConvertedAttention convert_lsq(const LayerTask& task);
void lay_out_lsq(Plan& plan);
core::OrderedJson options_of_lsq(const ConversionOptions& options);

}  // namespace mha2mla::convert
