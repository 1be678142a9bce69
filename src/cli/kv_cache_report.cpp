#include "cli/kv_cache_report.h"

#include <cstddef>
#include <numeric>
#include <vector>

namespace mha2mla::cli {
namespace {

std::size_t layer_bytes(const checkpoint::ModelConfig& config, int layer, const cache::CacheFormat& format) {
    if (!config.is_mla()) {
        const auto width = static_cast<std::size_t>(config.head_dim);
        return static_cast<std::size_t>(config.num_key_value_heads) *
               (format.keys.row_bytes(width) + format.content.row_bytes(width));
    }
    const auto& mla = config.mla();
    const auto latent = static_cast<std::size_t>(mla.head_rank(layer));
    const auto rotary = static_cast<std::size_t>(mla.row_width(layer)) - latent;
    const auto groups = static_cast<std::size_t>(mla.latent_groups);
    return groups * (format.content.row_bytes(latent) + format.rotary.row_bytes(rotary));
}

}  // namespace

core::OrderedJson kv_cache_report(const checkpoint::ModelConfig& config, const cache::CacheFormat& format) {
    std::vector<std::size_t> bytes;
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) bytes.push_back(layer_bytes(config, layer, format));
    const std::size_t total = std::accumulate(bytes.begin(), bytes.end(), std::size_t{0});
    const int source_elements = 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers;
    const std::size_t source_bytes = static_cast<std::size_t>(source_elements) * core::size_of(format.content.dtype);
    core::OrderedJson object{{"format", cache::name_of(format)},
                             {"bytes_per_token", total},
                             {"bytes_per_token_per_layer", bytes},
                             {"source_bytes_per_token", source_bytes},
                             {"saved", 1.0 - static_cast<double>(total) / static_cast<double>(source_bytes)}};
    if (config.is_mla()) {
        object["sink_bytes_per_sequence"] = static_cast<std::size_t>(config.mla().sink_tokens) * source_bytes;
    }
    return object;
}

}  // namespace mha2mla::cli
