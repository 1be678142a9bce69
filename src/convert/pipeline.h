#pragma once

#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "convert/method.h"
#include "convert/plan.h"
#include "core/dtype.h"
#include "core/progress.h"

namespace mha2mla::convert {

/// Token windows that calibration runs through the model, and a word on where they came from.
struct CalibrationTokens {
    std::vector<std::vector<int>> windows;
    std::string origin;  ///< "sampled from the source model, seed 0" or a file name
};

struct ConvertRequest {
    std::filesystem::path target;
    bool replace = false;  ///< replace an existing target
    core::DType dtype = core::DType::bf16;
    std::string device = "cpu";
    /// Moments of a calibration: read where the directory exists, else measured and saved there; empty: neither.
    std::filesystem::path statistics;
    std::string command;  ///< recorded in conversion.json
    std::string version;  ///< of this program, recorded in conversion.json
};

struct ConversionReport {
    Plan plan;  ///< complete, with the pairs of every layer
    std::vector<LayerFidelity> layers;
    double seconds = 0;
    core::OrderedJson to_json() const;
};

/// Throws Error where the target or new statistics cannot be written or the device cannot be used: to be asked before
/// long work.
void check_request(const ConvertRequest& request);

/// True when the conversion needs calibration tokens (2-norm selection; the method lsq, unless statistics exist).
bool needs_calibration(const ConversionOptions& options, const ConvertRequest& request);

/// Converts layer by layer; at most one layer of weights is in memory. An interrupted run leaves the target untouched.
/// Throws Error (unusable device, target or calibration) and Cancelled.
ConversionReport convert(const checkpoint::Checkpoint& source, const Plan& plan, const CalibrationTokens& calibration,
                         const ConvertRequest& request, core::Progress& progress, const std::stop_token& stop);

}  // namespace mha2mla::convert
