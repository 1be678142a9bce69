#pragma once

#include <filesystem>
#include <string>

#include "calibrate/attention_moments.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/writer.h"

namespace mha2mla::calibrate {

/// What statistics on disk belong to: they serve no other model and no other options.
struct StatisticsOrigin {
    std::string model;  ///< fingerprint of the source model
    std::string text;   ///< the calibration text, in words
    MomentOptions options;
};

/// Fingerprint of a model: its shape and some of its weights.
std::string fingerprint_of(const checkpoint::Checkpoint& model);

/// Saves the moments of each layer, as fp32, in a directory that appears complete or not at all.
class StatisticsWriter {
public:
    StatisticsWriter(const std::filesystem::path& target, const checkpoint::ModelConfig& config,
                     const StatisticsOrigin& origin);
    void add(int layer, const AttentionMoments& moments);
    void finish() { writer_.finish(); }

private:
    checkpoint::ModelConfig config_;
    checkpoint::CheckpointWriter writer_;
};

/// Moments that an earlier conversion saved.
class Statistics {
public:
    /// Throws Error naming the file where it is damaged, or was made from another model or with other options.
    Statistics(const std::filesystem::path& path, const checkpoint::Checkpoint& model, const MomentOptions& options);
    AttentionMoments layer(int layer) const;
    const std::string& text() const { return text_; }

private:
    checkpoint::ModelConfig config_;
    checkpoint::SafetensorsSource tensors_;
    std::string where_;
    std::string text_;
};

}  // namespace mha2mla::calibrate
