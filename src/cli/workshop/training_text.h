#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "cli/session.h"
#include "finetune/recovery.h"
#include "parallel/communicator.h"

namespace mha2mla::cli {

/// What to train on, as the user says it.
struct TrainingTextOptions {
    std::vector<std::string> files{"self"};  ///< "self": text that the teacher itself writes
};

/// --text, --window, --held-out.
void add_training_text_options(CLI::App& verb, TrainingTextOptions& text, finetune::Options& options);

/// Windows of the files' documents, or of text sampled from the teacher, which an unfinished run keeps: as many as
/// --tokens asks for. Throws Error naming file and line.
finetune::TrainingText training_text(const checkpoint::Checkpoint& teacher, const TrainingTextOptions& text,
                                     const finetune::RecoveryRequest& request, Session& session,
                                     const parallel::Communicator& processes);

}  // namespace mha2mla::cli
