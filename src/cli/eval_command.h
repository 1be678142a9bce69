#pragma once

#include <string>

#include "cli/answer_options.h"
#include "cli/model_options.h"
#include "cli/session.h"
#include "eval/perplexity.h"
#include "eval/results_file.h"

namespace mha2mla::cli {

/// The options of `eval`; each task reads those that concern it.
struct EvalCommand {
    ModelOptions model;
    std::string task = "perplexity";
    std::string against;  ///< the source model: --against
    std::string data;     ///< a benchmark's file or folder: --data
    std::string results;  ///< where finished requests are kept: --results; empty: nowhere
    int limit = 0;        ///< requests of a task; 0: all
    int parallel = 8;     ///< requests that run at a time
    AnswerOptions answers;

    std::string text;
    int window = 1024;
    eval::PerplexityOptions perplexity;
    std::string engine = "native";
    std::string device = "cpu";
    std::string emulated_cache;
};

/// One task each: measures and prints.
void eval_longbench(const EvalCommand& command, Session& session);
void eval_retrieval(const EvalCommand& command, Session& session);

/// The file of --results, or none. `task` adds what the task's results depend on beside model, formats and limit.
eval::ResultsFile results_file(const EvalCommand& command, core::Json task);

}  // namespace mha2mla::cli
