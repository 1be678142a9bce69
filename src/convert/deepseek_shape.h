#pragma once

#include <vector>

#include "convert/lsq_sizes.h"

// Conversions of lsq that stock engines load once they are exported as DeepSeek-V3: one rotary key whose C pairs turn
// by the powers of one base, base^(-i/C); the same sizes in every layer; no biases, no positional part, no exact
// tokens.

namespace mha2mla::convert {

/// Pairs s apart from the first on, so that their frequencies are such a table: s is 1, 2, 4, ... One list for each s.
/// Empty where the model's own frequencies are no powers of one base from 1 on (scaled ones).
std::vector<std::vector<int>> geometric_pairs(const checkpoint::ModelConfig& source, int components);

/// Restricts a laid-out plan of lsq. Throws Error where the model has biases or its frequencies are scaled.
void restrict_to_deepseek_shape(Plan& plan);

/// The best few numbers of components and distances by the method's first-order model, and, to compare with, the same
/// cache without the restriction to geometric pairs and equal sizes.
std::vector<Alternative> alternatives_of_deepseek_shape(const Plan& plan, const Evidence& evidence,
                                                        core::Progress& progress, const std::stop_token& stop);

}  // namespace mha2mla::convert
