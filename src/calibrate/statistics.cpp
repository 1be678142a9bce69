#include "calibrate/statistics.h"

#include <bit>
#include <cstdint>
#include <vector>

#include "calibrate/statistics_files.h"
#include "checkpoint/tensors.h"
#include "core/fingerprint.h"

namespace mha2mla::calibrate {

std::string fingerprint_of(const checkpoint::Checkpoint& model) {
    const auto& config = model.config();
    core::Fingerprint fingerprint;
    for (const int size : {config.num_hidden_layers, config.hidden_size, config.num_attention_heads,
                           config.num_key_value_heads, config.head_dim}) {
        fingerprint.add(static_cast<std::uint64_t>(size));
    }
    const checkpoint::Shape shape{std::int64_t{config.num_attention_heads} * config.head_dim, config.hidden_size};
    std::vector<float> row(static_cast<std::size_t>(config.hidden_size));
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        model.read_rows(checkpoint::layer_tensor(layer, "self_attn.q_proj.weight"), shape, 0, 1, row);
        for (const float value : row) fingerprint.add(std::uint64_t{std::bit_cast<std::uint32_t>(value)});
    }
    return fingerprint.hex();
}

Statistics::Statistics(const std::filesystem::path& path, const checkpoint::Checkpoint& model,
                       const MomentOptions& options)
    : path_(path), config_(model.config()) {
    files::check_origin(path, {.model = fingerprint_of(model), .text = {}, .options = options});
    text_ = files::read_text(path);
    for (int layer = 0; layer < config_.num_hidden_layers; ++layer) files::check_layer(path, layer, config_);
}

CalibrationTokens Statistics::tokens() const { return files::read_tokens(path_); }

AttentionMoments Statistics::layer(int layer) const { return files::read_layer(path_, layer, config_); }

}  // namespace mha2mla::calibrate
