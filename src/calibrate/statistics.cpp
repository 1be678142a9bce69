#include "calibrate/statistics.h"

#include <bit>
#include <cstdint>
#include <vector>

#include "calibrate/statistics_files.h"
#include "checkpoint/tensors.h"
#include "core/fingerprint.h"

namespace mha2mla::calibrate {

namespace {

/// The first row of a matrix, a whole vector.
void add_part(const checkpoint::Checkpoint& model, const checkpoint::TensorSpec& spec, core::Fingerprint& fingerprint) {
    const std::int64_t rows = spec.shape.size() == 1 ? spec.shape.front() : 1;
    std::vector<float> values(
        static_cast<std::size_t>(checkpoint::element_count(spec.shape) / spec.shape.front() * rows));
    model.read_rows(spec.name, spec.shape, 0, rows, values);
    for (const float value : values) fingerprint.add(std::uint64_t{std::bit_cast<std::uint32_t>(value)});
}

}  // namespace

std::string fingerprint_of(const checkpoint::Checkpoint& model) {
    const auto& config = model.config();
    core::Fingerprint fingerprint;
    for (const int size : {config.num_hidden_layers, config.hidden_size, config.num_attention_heads,
                           config.num_key_value_heads, config.head_dim}) {
        fingerprint.add(static_cast<std::uint64_t>(size));
    }
    fingerprint.add(std::bit_cast<std::uint64_t>(static_cast<double>(config.rms_norm_eps)));
    for (const double frequency : checkpoint::rope_frequencies(config)) {
        fingerprint.add(std::bit_cast<std::uint64_t>(frequency));
    }
    for (const auto& spec : checkpoint::expected_tensors(config)) add_part(model, spec, fingerprint);
    return fingerprint.hex();
}

Statistics::Statistics(const std::filesystem::path& path, const checkpoint::Checkpoint& model,
                       const MomentOptions& options)
    : path_(path), config_(model.config()) {
    files::check_origin(path, {.model = fingerprint_of(model), .text = {}, .options = options});
    text_ = files::read_text(path);
    for (int layer = 0; layer < config_.num_hidden_layers; ++layer) files::check_layer(path, layer, config_);
}

TokensRecord text_of(const std::filesystem::path& statistics) { return files::read_text(statistics); }

data::TextWindows Statistics::tokens() const { return files::read_tokens(path_, config_.vocab_size); }

AttentionMoments Statistics::layer(int layer) const { return files::read_layer(path_, layer, config_); }

}  // namespace mha2mla::calibrate
