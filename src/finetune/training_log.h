#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "finetune/options.h"

namespace mha2mla::finetune {

/// One step of the optimizer.
struct LogEntry {
    Objective objective = Objective::distill;
    std::int64_t step = 0;    ///< from 0, over all stages
    std::int64_t tokens = 0;  ///< learned from so far, this step's included
    double loss = 0;
    double gradient_norm = 0;  ///< before clipping
    double learning_rate = 0;
    double seconds = 0;  ///< of this step
};

/// log.jsonl: a line a step, written at once.
class TrainingLog {
public:
    /// Goes on behind the first `steps` entries of a log that is there; what comes after them is dropped. Only one
    /// process of several writes. Throws Error where the entries are not there, or a line is damaged.
    TrainingLog(std::filesystem::path path, std::int64_t steps, bool writes);

    void add(const LogEntry& entry);
    /// Flushes it to the disk. A snapshot that outlives a power cut is of no use without the steps before it.
    void sync() const;
    const std::vector<LogEntry>& entries() const { return entries_; }

private:
    std::filesystem::path path_;
    std::vector<LogEntry> entries_;
    std::ofstream stream_;  // closed where another process writes
};

/// How many steps must have been made before one can fall out of them.
inline constexpr std::size_t recent_steps = 16;

/// Whether a step's loss and gradient are both far above the medians of the recent entries, where these are of its
/// objective: either alone is a batch of other text.
bool is_spike(const std::vector<LogEntry>& entries, Objective objective, double loss, double gradient_norm);

/// The losses of a run as a picture: SVG, a curve an objective over the tokens, losses on a logarithmic scale.
std::string loss_plot(const std::vector<LogEntry>& entries);

}  // namespace mha2mla::finetune
