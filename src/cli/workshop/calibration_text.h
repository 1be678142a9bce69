#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "cli/session.h"
#include "cli/workshop/sampled_text.h"
#include "data/text_windows.h"
#include "parallel/communicator.h"

namespace mha2mla::cli {

/// What to calibrate on, as the user says it.
struct CalibrationTextOptions : SampledTextOptions {
    std::vector<std::string> files;   ///< none: text that the source model itself writes
    std::optional<int> asked_window;  ///< else the usual length, or the model's context where that is shorter
    int shortest_window = 1;          ///< that the method can use
};

/// --calibration, --calibration-temperatures, --calibration-windows, --calibration-window.
void add_calibration_options(CLI::App& verb, CalibrationTextOptions& options);

/// --memory SIZE: bytes, or with a suffix K, M, G; default a quarter of the machine's.
void add_memory_option(CLI::App& verb, std::size_t& bytes);

/// Windows of the files, evenly mixed, or, so that a conversion needs no data set, of text sampled from the model with
/// the session's seed, each process its share, as many windows together as the memory has caches for. Where a
/// calibration into `statistics` was interrupted, the text that it had sampled is taken from there. Throws Error naming
/// file and line before anything long.
data::TextWindows calibration_text(const checkpoint::Checkpoint& model, CalibrationTextOptions options,
                                   const std::filesystem::path& statistics, Session& session,
                                   const parallel::Communicator& processes = parallel::alone());

/// Throws Error where --calibration names other texts than those that the statistics were made of.
void check_same_text(const CalibrationTextOptions& options, const std::filesystem::path& statistics);

/// A remark, after a stop request, on what of a calibration is kept.
void note_interruption(const std::filesystem::path& statistics, const Session& session);

}  // namespace mha2mla::cli
