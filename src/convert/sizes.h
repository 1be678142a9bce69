#pragma once

#include "convert/plan.h"

// Sizes that the methods with one shared rotary key work out alike: a latent of R elements and C rotary components
// of 2.

namespace mha2mla::convert {

inline constexpr double default_cache_ratio = 0.5;

/// Cached elements of the source, per token and layer.
int source_elements(const checkpoint::ModelConfig& source);

/// Elements to cache per token and layer by --cache-ratio. Throws Error where it is not within (0, most].
int cached_elements(const checkpoint::ModelConfig& source, const ConversionOptions& options, double most);

/// R: from --kv-rank, or what the rotary key leaves of `elements`, no more than `largest`. Throws Error where that is
/// no rank.
int resolve_rank(const checkpoint::ModelConfig& source, const ConversionOptions& options, int elements, int components,
                 int largest);

}  // namespace mha2mla::convert
