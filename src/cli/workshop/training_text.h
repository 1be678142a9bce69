#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "cli/session.h"
#include "finetune/recovery.h"

namespace mha2mla::cli {

/// What to train on, as the user says it.
struct TrainingTextOptions {
    std::vector<std::string> files{"self"};  ///< one may be "self": what the teacher itself writes
};

/// --text, --window, --held-out.
void add_training_text_options(CLI::App& verb, TrainingTextOptions& text, finetune::Options& options);

/// Windows of the files' documents and of text sampled from the teacher, which an unfinished run keeps, evenly mixed:
/// as many as --tokens asks for, or all there are. Throws Error naming file and line.
data::TextWindows training_text(const checkpoint::Checkpoint& teacher, const TrainingTextOptions& text,
                                const finetune::RecoveryRequest& request, Session& session);

}  // namespace mha2mla::cli
