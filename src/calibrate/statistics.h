#pragma once

#include <filesystem>
#include <string>

#include "calibrate/attention_moments.h"
#include "calibrate/tokens.h"
#include "checkpoint/checkpoint.h"

namespace mha2mla::calibrate {

/// What statistics on disk belong to: they serve no other model and no other options.
struct StatisticsOrigin {
    std::string model;  ///< fingerprint of the source model
    TokensRecord text;
    MomentOptions options;
};

/// Fingerprint of a model: its shape, its frequencies and some weights of each tensor.
std::string fingerprint_of(const checkpoint::Checkpoint& model);

/// Moments that an earlier calibration saved.
class Statistics {
public:
    /// Throws Error naming the file where it is damaged, or was made from another model or with other options.
    Statistics(const std::filesystem::path& path, const checkpoint::Checkpoint& model, const MomentOptions& options);
    AttentionMoments layer(int layer) const;
    const TokensRecord& text() const { return text_; }
    /// The text itself.
    data::TextWindows tokens() const;

private:
    std::filesystem::path path_;
    checkpoint::ModelConfig config_;
    TokensRecord text_;
};

/// What the statistics of a directory were measured on. Throws Error where that cannot be read.
TokensRecord text_of(const std::filesystem::path& statistics);

}  // namespace mha2mla::calibrate
