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
    int windows = 8;
    int window = 256;  ///< tokens
};

/// Reads the file's first windows, or samples them from the model at temperature 1 with the session's seed, so that a
/// conversion needs no data set.
CalibrationText calibration_text(const checkpoint::Checkpoint& model, const CalibrationOptions& options,
                                 Session& session);

}  // namespace mha2mla::cli
