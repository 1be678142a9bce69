#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "finetune/adamw.h"
#include "finetune/parameters.h"
#include "finetune/shards.h"

namespace mha2mla::finetune {

/// How far a run is.
struct Position {
    std::size_t stage = 0;
    std::int64_t stage_step = 0;  ///< next step of the stage
    std::int64_t step = 0;        ///< steps made, over all stages
    std::int64_t tokens = 0;      ///< learned from
    std::int64_t left_out = 0;    ///< batches on end, the last ones before, that nothing was learned from

    bool operator==(const Position&) const = default;
};

/// What training changes. The optimizer is of this process's parameters.
struct TrainingState {
    const std::vector<NamedParameter>& parameters;
    AdamW& optimizer;
    const Shards& shards;
};

/// The snapshots of a run in a directory: weights, the optimizer's moments and the position, each complete or not there
/// at all. The newest two are kept.
class Snapshots {
public:
    /// `request`: what the run's result depends on; a snapshot of another request is refused.
    Snapshots(std::filesystem::path directory, std::string request);

    /// Whether there is one of this position.
    bool has(const Position& position) const;
    /// Every process calls it, as it takes each one's share of the moments; the first one writes.
    void save(const Position& position, const TrainingState& state, bool writes);
    /// The newest one's position, or nothing.
    std::optional<Position> newest() const;
    /// Fills parameters and this process's share of the moments from the snapshot at a position. Throws Error naming
    /// the file where it is damaged or of another run.
    void load(const Position& position, const TrainingState& state) const;

    /// Removes what was being written when a process was killed.
    void remove_remains() const;

    const std::filesystem::path& directory() const { return directory_; }

private:
    /// What position.json says.
    struct Record {
        Position position;
        std::int64_t optimizer_steps = 0;  // of the stage
    };
    std::vector<std::filesystem::path> entries(bool complete) const;
    Record read_record(const std::filesystem::path& snapshot) const;

    std::filesystem::path directory_;
    std::string request_;
};

}  // namespace mha2mla::finetune
