#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/answer_options.h"
#include "cli/model_options.h"
#include "cli/session.h"
#include "data/windows.h"
#include "eval/perplexity.h"
#include "eval/results_file.h"

namespace mha2mla::cli {

/// The options of `eval`; each task reads those that concern it.
struct EvalCommand {
    ModelOptions model;
    std::string task = "perplexity";
    std::string against;  ///< the source model
    std::string data;     ///< a benchmark's file or folder
    std::string results;  ///< where finished requests are kept; empty: nowhere
    int limit = 0;        ///< requests of a task; 0: all
    int parallel = 8;     ///< requests that run at a time
    AnswerOptions answers;

    std::string text;
    int window = 1024;
    int stride = 0;  ///< from a window to the next; 0: a window
    std::string convention = "windows";
    eval::PerplexityOptions perplexity;
    std::string engine = "native";
    std::string device = "cpu";
    std::string emulated_cache;
};

/// One task each: measures and prints.
void eval_perplexity(const CLI::App& verb, const EvalCommand& command, Session& session);
void eval_fidelity(const EvalCommand& command, Session& session);
void eval_choices(const EvalCommand& command, Session& session);
void eval_longbench(const EvalCommand& command, Session& session);
void eval_retrieval(const EvalCommand& command, Session& session);

/// The text of --text in windows. Throws Error where the text lacks, or a window is longer than the model's context.
data::TokenWindows text_windows(const EvalCommand& command, const checkpoint::Checkpoint& model);

/// The native decoder for windows of the command, each token of which attends to what a decode step would find.
std::unique_ptr<runtime::Decoder> load_for_windows(const checkpoint::Checkpoint& model, runtime::DecoderOptions options,
                                                   const EvalCommand& command, Session& session);

/// What --context or else the model allows. Throws Error where the option asks for more than the model does.
int allowed_context(const EvalCommand& command, const checkpoint::ModelConfig& config);

/// What a task needs and the user did not pass is an Error.
void require_option(const std::string& value, const char* option, const EvalCommand& command);

/// What a report is of: model, data, formats, version.
core::OrderedJson run_report(const EvalCommand& command);

/// "int4 cache, 2553 bytes a token", of a kv_cache_report.
std::string cache_text(const core::OrderedJson& kv_cache);

/// The file of --results, or none. `files` make the prompts; `settings` add what the task's results depend on beside
/// these, model and formats.
eval::ResultsFile results_file(const EvalCommand& command, const std::vector<std::filesystem::path>& files,
                               core::Json settings);

}  // namespace mha2mla::cli
