#pragma once

#include <vector>

#include "convert/method.h"

namespace mha2mla::convert {

/// TransMLA (arXiv 2502.07864) without training, as docs/conversion.md describes it. For the list of methods.
void lay_out_transmla(Plan& plan);
core::OrderedJson options_of_transmla(const ConversionOptions& options);
/// The plan's freqfold must be chosen.
ConvertedAttention convert_transmla(const LayerTask& task);

/// With the plan's --freqfold, or for auto with each that the plan can have, doubling.
bool transmla_leaves_choices(const Plan& plan);
std::vector<Alternative> alternatives_of_transmla(const Plan& plan, const Evidence& evidence, core::Progress& progress,
                                                  const std::stop_token& stop);

}  // namespace mha2mla::convert
