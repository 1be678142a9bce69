#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <vector>

#include "calibrate/statistics.h"
#include "convert/pipeline.h"
#include "core/file.h"
#include "core/progress.h"

namespace mha2mla::convert {

/// Where a conversion's hidden states rest: beside its target beyond the request's memory.
calibrate::RestOptions rest_options(const ConvertRequest& request);

/// The statistics that a conversion works from: those that the request names, or new ones, which last as long as this
/// object where the request names no place.
class Measurements {
public:
    /// `source` and `request` must outlive this object.
    Measurements(const checkpoint::Checkpoint& source, const Plan& plan, const ConvertRequest& request);

    /// Measures where there is nothing yet. Throws Error and Cancelled.
    void measure(const data::TextWindows& text, core::Progress& progress, const std::stop_token& stop);
    /// To be asked once measured.
    const calibrate::Statistics& statistics() const { return *statistics_; }
    /// What measuring took; empty where the statistics were there already.
    const std::vector<double>& layer_seconds() const { return layer_seconds_; }

private:
    const checkpoint::Checkpoint& source_;
    calibrate::MomentOptions options_;
    const ConvertRequest& request_;
    std::optional<core::StagedDirectory> scratch_;
    std::filesystem::path path_;
    std::optional<calibrate::Statistics> statistics_;
    std::vector<double> layer_seconds_;
};

}  // namespace mha2mla::convert
