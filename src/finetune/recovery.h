#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/dtype.h"
#include "core/json.h"
#include "core/progress.h"
#include "data/text_windows.h"
#include "finetune/options.h"
#include "finetune/source_states.h"
#include "parallel/communicator.h"

namespace mha2mla::finetune {

/// A converted model and the one that it was converted from. Both must outlive it.
struct Pair {
    const checkpoint::Checkpoint& converted;
    const checkpoint::Checkpoint& source;
};

/// Takes `count` windows out, evenly spread. Throws Error where fewer than twice as many are there.
data::TextWindows hold_out(std::vector<std::vector<int>> windows, int count, std::string origin);

struct RecoveryRequest {
    Options options;
    std::filesystem::path target;
    bool replace = false;
    bool resume = false;
    core::DType dtype = core::DType::bf16;  ///< on disk
    std::chrono::duration<double> save_every = std::chrono::minutes(10);
    std::string version;
    std::string command;
    std::function<void(const std::string&)> note;  ///< for what a user should know
    /// Runs the source in bf16 on the CPU, asked for once its perplexity is known; empty: LibTorch does.
    std::function<std::unique_ptr<SourceStates>()> source_states;
    const parallel::Communicator* processes = &parallel::alone();  ///< which share the run; the first one writes
};

/// What a run did. Perplexities are of the held-out windows; those of the converted model are taken through the cache
/// that it learns for. Time and memory are of this process: a run that was resumed took longer.
struct RecoveryReport {
    double source_perplexity = 0;
    double perplexity_before = 0;
    double perplexity_after = 0;
    std::int64_t steps = 0;
    std::int64_t tokens = 0;
    double seconds = 0;
    std::size_t peak_memory_bytes = 0;

    core::OrderedJson to_json() const;
};

/// Throws Error where the run cannot begin: models that do not belong together, a target that is there, an unfinished
/// run where `resume` is not set. To be asked before anything long.
void check_request(const Pair& models, const RecoveryRequest& request);

/// Fine-tunes a converted model towards its source and writes it to the target, complete or not at all. An unfinished
/// run keeps its snapshots and its log in core::partial_path.
RecoveryReport recover(const Pair& models, const data::TextWindows& text, const RecoveryRequest& request,
                       core::Progress& progress, const std::stop_token& stop);

}  // namespace mha2mla::finetune
