#pragma once

#include <vector>

#include "convert/method.h"

namespace mha2mla::convert {

/// TransMLA (arXiv 2502.07864) without training, as docs/conversion.md describes it. For the list of methods.
void lay_out_transmla(Plan& plan);
core::OrderedJson options_of_transmla(const ConversionOptions& options);
/// The plan's freqfold must be chosen.
ConvertedAttention convert_transmla(const LayerTask& task);

/// The values of --freqfold that this plan can have: those that auto tries, doubling.
std::vector<int> freqfolds_to_try(const Plan& plan);

}  // namespace mha2mla::convert
