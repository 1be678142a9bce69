#include "calibrate/tokens.h"

#include <algorithm>
#include <fmt/format.h>

#include "core/error.h"
#include "core/fingerprint.h"

namespace mha2mla::calibrate {

void hold_out(data::TextWindows& tokens) {
    auto& windows = tokens.windows;
    if (windows.size() < 2) return;
    const auto first = windows.end() - std::max<std::ptrdiff_t>(1, std::ssize(windows) / 8);
    tokens.held_out.assign(first, windows.end());
    windows.erase(first, windows.end());
}

TokensRecord record_of(const data::TextWindows& tokens) {
    TokensRecord record{.origin = tokens.origin,
                        .windows = std::ssize(tokens.windows) + std::ssize(tokens.held_out),
                        .tokens = 0,
                        .fingerprint = {}};
    core::Fingerprint fingerprint;
    for (const auto* windows : {&tokens.windows, &tokens.held_out}) {
        for (const auto& window : *windows) {
            record.tokens += std::ssize(window);
            fingerprint.add(std::uint64_t{window.size()});
            for (const int token : window) fingerprint.add(static_cast<std::uint64_t>(token));
        }
    }
    record.fingerprint = fingerprint.hex();
    return record;
}

void check_window(std::int64_t tokens, int shortest) {
    if (tokens >= shortest) return;
    throw core::Error({.what = "a calibration window is too short",
                       .expected = fmt::format("at least {} tokens", shortest),
                       .got = fmt::to_string(tokens),
                       .where = "--calibration-window"});
}

void check_windows(const data::TextWindows& tokens, int shortest) {
    if (tokens.windows.empty()) {
        throw core::Error({.what = "there is no text to calibrate on",
                           .where = "--calibration",
                           .remedy = "pass a longer text, or none to let the model write one"});
    }
    for (const auto* windows : {&tokens.windows, &tokens.held_out}) {
        for (const auto& window : *windows) {
            check_window(std::ssize(window), shortest);
        }
    }
}

}  // namespace mha2mla::calibrate
