#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace mha2mla::cli {

struct EvalCommand;

/// The options of the tasks of `eval` whose answers are generated: longbench, kv-retrieval, needle.
struct AnswerOptions {
    std::vector<std::string> datasets;  ///< of LongBench; empty: all that are there
    std::string chat = "auto";          ///< template of prompts: data::chat_template
    std::string jieba;                  ///< folder of the package
    int max_length = 0;                 ///< tokens of a prompt before it is cut; 0: what the context holds
    std::vector<int> lengths = {1024, 2048, 4096};
    std::vector<int> depths = {0, 25, 50, 75, 100};
    int needles = 1;  ///< of each length and depth
    std::string plot;
};

/// Those.
void add_answer_options(CLI::App& verb, EvalCommand& command);

}  // namespace mha2mla::cli
