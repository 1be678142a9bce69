#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>

#include "cli/eval_command.h"
#include "core/error.h"
#include "eval/choice_tasks.h"

namespace mha2mla::cli {
namespace {

using Evaluate = void (*)(const EvalCommand&, Session&);
using Names = std::vector<std::string>;

/// Perplexity aside, every task with what measures it.
std::vector<std::pair<std::string, Evaluate>> tasks() {
    std::vector<std::pair<std::string, Evaluate>> tasks{{"fidelity", eval_fidelity}};
    for (const auto& task : eval::choice_tasks()) tasks.emplace_back(task.name, eval_choices);
    tasks.emplace_back("commonsense", eval_choices);
    tasks.emplace_back("requests", eval_choices);
    tasks.emplace_back("longbench", eval_longbench);
    tasks.emplace_back("kv-retrieval", eval_retrieval);
    tasks.emplace_back("needle", eval_retrieval);
    return tasks;
}

Names task_names() {
    Names names{"perplexity"};
    for (const auto& [name, measure] : tasks()) names.push_back(name);
    return names;
}

/// An option that only some tasks read.
struct TaskOption {
    const char* name;
    Names tasks;
};

std::vector<TaskOption> task_options() {
    const Names perplexity{"perplexity"}, windows{"perplexity", "fidelity"}, needle{"needle"}, longbench{"longbench"};
    Names files{"commonsense", "requests", "longbench", "kv-retrieval"};
    for (const auto& task : eval::choice_tasks()) files.emplace_back(task.name);
    Names questions = files;
    questions.emplace_back("needle");
    return {{"--data", files},
            {"--limit", files},
            {"--parallel", questions},
            {"--results", questions},
            {"--engine", perplexity},
            {"--device", perplexity},
            {"--emulate-cache", perplexity},
            {"--stride", perplexity},
            {"--convention", perplexity},
            {"--window", windows},
            {"--first", windows},
            {"--windows", windows},
            {"--text", {"perplexity", "fidelity", "needle"}},
            {"--against", {"fidelity"}},
            {"--dataset", longbench},
            {"--jieba", longbench},
            {"--max-length", longbench},
            {"--chat", {"longbench", "kv-retrieval", "needle"}},
            {"--lengths", needle},
            {"--depths", needle},
            {"--needles", needle},
            {"--plot", needle}};
}

/// What is named twice would be measured twice, and count twice.
template <typename T>
void check_distinct(std::vector<T> values, const char* option) {
    std::ranges::sort(values);
    const auto twice = std::ranges::adjacent_find(values);
    if (twice == values.end()) return;
    throw core::Error({.what = "a value is named twice", .got = fmt::format("{}", *twice), .where = option});
}

/// An option that the task does not read is an error: it would measure something else than was asked for.
void check_options(const CLI::App& verb, const EvalCommand& command) {
    for (const auto& [name, readers] : task_options()) {
        const auto* const option = verb.get_option(name);
        if (option->count() == 0) continue;
        if (option->as<std::string>().empty())
            throw core::Error({.what = "the option's value is empty", .where = name});
        if (std::ranges::count(readers, command.task) > 0) continue;
        throw core::Error({.what = fmt::format("the task {} has no such option", command.task), .where = name});
    }
    check_distinct(command.answers.datasets, "--dataset");
    check_distinct(command.answers.lengths, "--lengths");
    check_distinct(command.answers.depths, "--depths");
}

void evaluate(const CLI::App& verb, const EvalCommand& command, Session& session) {
    check_options(verb, command);
    if (command.task == "perplexity") return eval_perplexity(verb, command, session);
    for (const auto& [name, measure] : tasks()) {
        if (name == command.task) return measure(command, session);
    }
}

void add_text_options(CLI::App& verb, EvalCommand& command) {
    verb.add_option("--text", command.text, "perplexity, fidelity: text file; needle: the haystack");
    verb.add_option("--window", command.window, "Tokens of a window")
        ->check(CLI::Range(2, 1 << 20))
        ->capture_default_str();
    verb.add_option("--first", command.perplexity.first, "Index of the first window")
        ->check(CLI::Range(0, 1 << 30))
        ->capture_default_str();
    verb.add_option("--windows", command.perplexity.windows, "Number of windows; 0 = all that follow")
        ->check(CLI::Range(0, 1 << 30))
        ->capture_default_str();
    verb.add_option("--stride", command.stride,
                    "perplexity: a window every so many tokens, of which its last so many count; 0 = no overlap")
        ->check(CLI::Range(0, 1 << 20))
        ->capture_default_str();
    verb.add_option("--convention", command.convention,
                    "perplexity: windows, or llama.cpp (its llama-perplexity: windows of 512 whose second half counts)")
        ->check(CLI::IsMember({"windows", "llama.cpp"}))
        ->capture_default_str();
}

void add_engine_options(CLI::App& verb, EvalCommand& command) {
    verb.add_option("--engine", command.engine, "perplexity: native, or workshop (the LibTorch module)")
        ->check(CLI::IsMember({"native", "workshop"}))
        ->capture_default_str();
    verb.add_option("--device", command.device, "Device of the workshop engine, as LibTorch spells it")
        ->capture_default_str();
    verb.add_option(
            "--emulate-cache", command.emulated_cache,
            "Workshop engine: attend to what such a cache gives back: bf16, int8, int4 or int2 in groups of 32 "
            "(int4-g64: of 64; int4-c: by channel in full pages); rotary keys of a converted model in int8, its "
            "sinks exact")
        ->type_name("FORMAT");
}

void add_benchmark_options(CLI::App& verb, EvalCommand& command) {
    verb.add_option("--against", command.against, "fidelity: the model that MODEL was converted from");
    verb.add_option(
        "--data", command.data,
        "Benchmarks: their file, or the folder that holds it under its published name (requests, kv-retrieval: "
        "the file; commonsense, longbench: the folder)");
    verb.add_option("--limit", command.limit,
                    "Benchmarks: so many rows of each file (of requests: questions), its first ones; 0 = all")
        ->check(CLI::Range(0, 1 << 30))
        ->capture_default_str();
    verb.add_option("--parallel", command.parallel, "Benchmarks: questions at a time")
        ->check(CLI::Range(1, runtime::Decoder::max_batch_tokens))
        ->capture_default_str();
    verb.add_option("--results", command.results,
                    "Benchmarks: keep each question's result in this file (JSON lines); started again with it, the run "
                    "goes on where it was stopped")
        ->type_name("FILE");
}

}  // namespace

int allowed_context(const EvalCommand& command, const checkpoint::ModelConfig& config) {
    const int asked = command.model.decoder.context_tokens;
    if (asked <= config.max_position_embeddings) return asked > 0 ? asked : config.max_position_embeddings;
    throw core::Error({.what = "the model was not made for so long a context",
                       .expected = fmt::format("at most {}", config.max_position_embeddings),
                       .got = fmt::to_string(asked),
                       .where = "--context"});
}

void require_option(const std::string& value, const char* option, const EvalCommand& command) {
    if (!value.empty()) return;
    throw core::Error({.what = fmt::format("the task {} needs {}", command.task, option),
                       .where = option,
                       .remedy = "see mha2mla eval --help"});
}

void add_eval(CLI::App& program, Session& session) {
    auto command = std::make_shared<EvalCommand>();
    CLI::App* verb = add_verb(
        program, session, "eval", "Measure what a model is worth: perplexity, fidelity to its source, benchmarks",
        "  mha2mla eval MODEL --task perplexity --text wiki.txt --window 1024 --first 8 --windows 8\n"
        "  mha2mla eval MODEL --text wiki.txt --convention llama.cpp\n"
        "  mha2mla eval CONVERTED --task fidelity --against MODEL --text wiki.txt --windows 8 --kv-cache int4\n"
        "  mha2mla eval MODEL --task commonsense --data benchmarks/ --limit 200 --results run.jsonl\n"
        "  mha2mla eval MODEL --task requests --data requests.jsonl.gz --json\n"
        "  mha2mla eval MODEL --task longbench --data LongBench/ --dataset multi_news,qasper --kv-cache int4\n"
        "  mha2mla eval MODEL --task needle --text book.txt --lengths 1024,4096 --plot needle.svg");
    add_model_options(*verb, command->model);
    verb->add_option("--task", command->task, fmt::format("{}", fmt::join(task_names(), ", ")))
        ->check(CLI::IsMember(task_names()))
        ->type_name("TASK")
        ->capture_default_str();
    add_text_options(*verb, *command);
    add_engine_options(*verb, *command);
    add_benchmark_options(*verb, *command);
    add_answer_options(*verb, *command);
    verb->callback([command, verb, &session] { evaluate(*verb, *command, session); });
}

}  // namespace mha2mla::cli
