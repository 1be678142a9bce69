#pragma once

#include "convert/method.h"

namespace mha2mla::convert {

/// Our method, docs/conversion.md section "lsq": every choice solves a least-squares problem in one unit, the expected
/// squared error of the layer's output. Closed form, calibrated by AttentionMoments.
ConvertedAttention convert_lsq(const LayerTask& task);
void lay_out_lsq(Plan& plan);
/// R of a layer with that many rotary components. Throws Error where the options leave none.
int lsq_rank(const checkpoint::ModelConfig& source, const ConversionOptions& options, int components);
core::OrderedJson options_of_lsq(const ConversionOptions& options);

}  // namespace mha2mla::convert
