#pragma once

#include "cache/cache_format.h"
#include "checkpoint/model_config.h"
#include "core/json.h"

namespace mha2mla::cli {

/// What a token costs in a cache of this format, by formula, codes and their scales included: "bytes_per_token" over
/// all layers, "bytes_per_token_per_layer", the source's "source_bytes_per_token" and the "sink_bytes_per_sequence"
/// (sinks keep what the source would have kept of them) with un-quantized numbers of the format's type.
core::OrderedJson kv_cache_report(const checkpoint::ModelConfig& config, const cache::CacheFormat& format);

}  // namespace mha2mla::cli
