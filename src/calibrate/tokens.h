#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mha2mla::calibrate {

/// Token windows that calibration runs through the model, and a word on where they came from.
struct CalibrationTokens {
    std::vector<std::vector<int>> windows;
    std::string origin;  ///< "sampled from the source model, seed 0" or file names
};

/// What records keep of a calibration's text.
struct TokensRecord {
    std::string origin;
    std::int64_t windows = 0;
    std::int64_t tokens = 0;
    std::string fingerprint;  ///< of the windows' lengths and tokens; the same on every machine

    bool operator==(const TokensRecord&) const = default;
};

TokensRecord record_of(const CalibrationTokens& tokens);

/// Throws Error where there is no window, or one of less than `shortest` tokens.
void check_windows(const CalibrationTokens& tokens, int shortest);

}  // namespace mha2mla::calibrate
