#pragma once

#include <cstdint>
#include <string>

#include "data/text_windows.h"

namespace mha2mla::calibrate {

/// Holds out the last eighth of the windows, of 2 or more at least one.
void hold_out(data::TextWindows& tokens);

/// What records keep of a calibration's text, windows held out included.
struct TokensRecord {
    std::string origin;
    std::int64_t windows = 0;
    std::int64_t tokens = 0;
    std::string fingerprint;  ///< of the windows' lengths and tokens; the same on every machine

    bool operator==(const TokensRecord&) const = default;
};

TokensRecord record_of(const data::TextWindows& tokens);

/// Throws Error where a window of so many tokens is shorter than what a method needs: to be asked before long work.
void check_window(std::int64_t tokens, int shortest);
/// Throws Error where there is no window, or one of less than `shortest` tokens.
void check_windows(const data::TextWindows& tokens, int shortest);

}  // namespace mha2mla::calibrate
