#pragma once

#include <string>

#include "cli/model_options.h"
#include "cli/session.h"
#include "runtime/generate.h"

namespace mha2mla::cli {

/// What `generate --prompts` does, as the user says it.
struct PromptsCommand {
    ModelOptions model;
    std::string file;  ///< of prompts; "-": standard input
    int parallel = 8;  ///< prompts that are continued at a time
    runtime::GenerateOptions generate;
    bool ignore_eos = false;
};

std::string_view name_of(runtime::FinishReason reason);

/// Continues every prompt and prints the outputs in the order of the prompts, each as soon as it and those before it
/// are done; with --json one object a line. Prompt i is sampled with the session's seed plus i. Tells the throughput at
/// the end. A stop request prints what is finished, then throws Cancelled.
void generate_prompts(const PromptsCommand& command, Session& session);

}  // namespace mha2mla::cli
