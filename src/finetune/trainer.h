#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "core/progress.h"
#include "finetune/adamw.h"
#include "finetune/batches.h"
#include "finetune/losses.h"
#include "finetune/shards.h"
#include "finetune/snapshot.h"
#include "finetune/training_log.h"
#include "parallel/communicator.h"

namespace mha2mla::finetune {

/// Where a run keeps itself, and who shares it.
struct TrainerSetup {
    std::filesystem::path directory;  ///< of snapshots and log.jsonl; every process must see it
    std::string request;              ///< what the result depends on, as text
    std::chrono::duration<double> save_every = std::chrono::minutes(10);
    bool resume = false;                           ///< go on from the newest snapshot, where there is one
    std::function<void(const std::string&)> note;  ///< for what a user should know
    const parallel::Communicator* processes = &parallel::alone();
};

/// Trains the student's chosen parameters stage by stage. Each step depends on the options, the windows and the weights
/// alone, so that a run that goes on from a snapshot ends with the same bits as one that was never stopped (with the
/// same number of threads). Several processes take shares of each batch and of the optimizer's state (Shards).
class Trainer {
public:
    /// The models and the windows must outlive it. Throws Error where a snapshot is not of this run.
    Trainer(Models& models, const std::vector<std::vector<int>>& windows, const Options& options,
            const TrainerSetup& setup);

    /// Trains to the end. At a stop request it takes a snapshot and throws Cancelled. An odd step, whose loss or
    /// gradient is not finite, or both far above the last ones', is not made: its batch is left out, which a note says.
    /// The third on end throws Error.
    void run(core::Progress& progress, const std::stop_token& stop);

    const std::vector<NamedParameter>& parameters() const { return parameters_; }
    const Position& position() const { return position_; }
    const std::vector<LogEntry>& log() const { return log_->entries(); }

private:
    struct Step {
        double loss = 0;
        double gradient_norm = 0;
    };
    bool is_first() const { return setup_.processes->rank() == 0; }
    Objective objective() const { return options_.stages[position_.stage].objective; }
    bool at_any(bool condition) const;
    void begin(std::optional<Position> snapshot);
    void check_position() const;
    void enter_stage();
    void train_batch();
    void take_step(const Step& step, const Batch& batch, std::chrono::steady_clock::time_point started);
    void advance();
    Step compute_gradients(const Batch& batch);
    bool is_odd(const Step& step) const;
    void leave_out(const Step& step);
    void report(core::Progress& progress, std::int64_t tokens_before) const;
    void save();

    Models& models_;
    const std::vector<std::vector<int>>& windows_;
    Options options_;
    TrainerSetup setup_;
    std::vector<std::vector<Batch>> plan_;
    std::vector<NamedParameter> parameters_;
    Snapshots snapshots_;
    Position position_;
    std::unique_ptr<Shards> shards_;
    std::unique_ptr<AdamW> optimizer_;
    std::unique_ptr<Loss> loss_;
    std::unique_ptr<TrainingLog> log_;
    std::chrono::steady_clock::time_point saved_;
};

}  // namespace mha2mla::finetune
