#include "convert/sizes.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace mha2mla::convert {

using checkpoint::ModelConfig;

int source_elements(const ModelConfig& source) { return 2 * source.num_key_value_heads * source.head_dim; }

int cached_elements(const ModelConfig& source, const ConversionOptions& options, double most) {
    const double ratio = options.cache_ratio.value_or(default_cache_ratio);
    if (!(ratio > 0 && ratio <= most)) {
        reject("--cache-ratio", "the share of the cache is out of range", fmt::format("above 0 and at most {}", most),
               fmt::format("{}", ratio));
    }
    return static_cast<int>(std::lround(ratio * source_elements(source)));
}

int resolve_rank(const ModelConfig& source, const ConversionOptions& options, int elements, int components,
                 int largest) {
    const int rope = 2 * components;
    const int rank =
        options.kv_rank ? *options.kv_rank * source.num_key_value_heads : std::min(largest, elements - rope);
    if (rank >= 1 && rank <= largest) return rank;
    if (options.kv_rank) {
        reject("--kv-rank", "the latent width per KV head is out of range",
               fmt::format("1..{} for this model with {} rotary components", largest / source.num_key_value_heads,
                           components),
               std::to_string(*options.kv_rank));
    }
    reject("--cache-ratio", "the cache is too small for the rotary key",
           fmt::format("at least {:.4f}, or fewer --rope-components", (rope + 1.0) / source_elements(source)),
           fmt::format("{}", options.cache_ratio.value_or(default_cache_ratio)));
}

}  // namespace mha2mla::convert
