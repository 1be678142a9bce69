#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "cli/session.h"

namespace mha2mla::cli {

/// Token windows for calibration and a word on their origin.
struct CalibrationText {
    std::vector<std::vector<int>> windows;
    std::string origin;
};

struct CalibrationOptions {
    std::string file;  ///< empty: text that the source model itself writes
    int windows = 16;
    int window = 1024;  ///< tokens; no more than the model's context
};

/// Reads the file's first windows, or samples them from the model at temperature 1 with the session's seed, so that a
/// conversion needs no data set.
CalibrationText calibration_text(const checkpoint::Checkpoint& model, CalibrationOptions options, Session& session);

}  // namespace mha2mla::cli
