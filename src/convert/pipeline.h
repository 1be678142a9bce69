#pragma once

#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "calibrate/tokens.h"
#include "checkpoint/checkpoint.h"
#include "convert/method.h"
#include "convert/plan.h"
#include "core/dtype.h"
#include "core/progress.h"
#include "data/text_windows.h"

namespace mha2mla::convert {

struct ConvertRequest {
    std::filesystem::path target;
    bool replace = false;  ///< replace an existing target
    core::DType dtype = core::DType::bf16;
    std::string device = "cpu";
    /// Moments of a calibration: read where the directory exists, else measured and saved there; empty: measured and
    /// not kept.
    std::filesystem::path statistics;
    /// Hidden states of the calibration beyond it rest on disk, beside the target.
    std::size_t memory_bytes = std::numeric_limits<std::size_t>::max();
    std::string command;  ///< recorded in conversion.json
    std::string version;  ///< of this program, recorded in conversion.json
};

struct ConversionReport {
    Plan plan;  ///< complete, with the pairs of every layer
    std::vector<LayerFidelity> layers;
    std::optional<calibrate::TokensRecord> text;  ///< that it was calibrated on
    std::optional<Trial> trial;                   ///< where plans were compared on held-out text
    double seconds = 0;
    std::vector<double> calibration_seconds;  ///< of each layer; empty where statistics were there already
    std::vector<double> layer_seconds;        ///< factors of each layer
    std::size_t peak_memory_bytes = 0;        ///< of the process, mapped files included
    core::OrderedJson to_json() const;
};

/// Throws Error where the target or new statistics cannot be written or the device cannot be used: to be asked before
/// long work.
void check_request(const ConvertRequest& request);

/// Throws Error where so few windows leave none to hold out, and the plan leaves choices to held-out text: to be asked
/// before long work.
void check_calibration_size(const Plan& plan, std::int64_t windows);

/// True when the conversion needs calibration tokens: 2-norm selection; lsq and transmla, unless statistics exist.
bool needs_calibration(const ConversionOptions& options, const ConvertRequest& request);

/// Converts layer by layer; at most one layer of weights is in memory. An interrupted run leaves the target untouched.
/// Throws Error (unusable device, target or calibration) and Cancelled.
ConversionReport convert(const checkpoint::Checkpoint& source, const Plan& plan, const data::TextWindows& calibration,
                         const ConvertRequest& request, core::Progress& progress, const std::stop_token& stop);

}  // namespace mha2mla::convert
