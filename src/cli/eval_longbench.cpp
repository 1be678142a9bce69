#include <algorithm>
#include <fmt/format.h>
#include <numeric>

#include "cli/answer_options.h"
#include "cli/answer_run.h"
#include "cli/eval_command.h"
#include "core/error.h"
#include "eval/longbench.h"

namespace mha2mla::cli {
namespace {

/// Decoding a cut prompt and reading it again may take some tokens more.
constexpr int margin_tokens = 32;

std::vector<const eval::LongBenchTask*> chosen_tasks(const EvalCommand& command) {
    if (command.answers.datasets.empty()) return eval::longbench_tasks_in(command.data);
    std::vector<const eval::LongBenchTask*> tasks;
    for (const auto& name : command.answers.datasets) tasks.push_back(&eval::longbench_task(name));
    return tasks;
}

/// A dataset on its way from rows to a score.
struct DatasetRun {
    eval::LongBenchData data;
    int max_length = 0;  // tokens of a prompt before it is cut
    std::vector<eval::Question> questions;
    std::vector<const eval::LongBenchRow*> rows;  // of the questions
    std::vector<std::string> left_out;
    double seconds = 0;

    std::size_t all_rows() const { return data.rows.size() + data.left_out.size(); }
};

int longest_prompt(const EvalCommand& command, const eval::LongBenchData& data, const AnswerRun& model) {
    const auto frame = model.question("", "", data.task->chats, 0).prompt.size();
    const int most = model.context_tokens() - data.max_tokens - static_cast<int>(frame) - margin_tokens;
    if (most <= 0) {
        throw core::Error({.what = "the context has no room for a prompt and its answer",
                           .expected = fmt::format("more than {} tokens", model.context_tokens() - most),
                           .got = fmt::to_string(model.context_tokens()),
                           .where = std::string(data.task->dataset)});
    }
    const int asked = command.answers.max_length;
    if (asked <= most) return asked > 0 ? asked : most;
    throw core::Error({.what = fmt::format("the context has no room for such prompts of {}", data.task->dataset),
                       .expected = fmt::format("at most {}", most),
                       .got = fmt::to_string(asked),
                       .where = "--max-length"});
}

/// An answer that is one line: the last token of "\n" ends it, and is not its first one.
void ask_for_one_line(eval::Question& question, const tokenizer::Tokenizer& words) {
    const auto newline = words.encode("\n", false);
    if (!newline.empty()) question.stop_tokens.push_back(newline.back());
    question.min_tokens = 1;
}

DatasetRun prepare(const EvalCommand& command, const eval::LongBenchTask& task, AnswerRun& model) {
    DatasetRun run;
    run.data = eval::read_longbench(command.data, task, command.limit);
    run.left_out = run.data.left_out;
    run.max_length = longest_prompt(command, run.data, model);
    for (auto& row : run.data.rows) {
        const auto prompt = eval::truncate_middle(std::move(row.prompt), run.max_length, model.words());
        auto question = model.question(row.id, prompt, task.chats, run.data.max_tokens);
        if (task.ends_at_newline) ask_for_one_line(question, model.words());
        if (auto reason = model.admit(question)) {
            run.left_out.push_back(std::move(*reason));
            continue;
        }
        run.questions.push_back(std::move(question));
        run.rows.push_back(&row);
    }
    return run;
}

std::vector<DatasetRun> prepare_all(const EvalCommand& command, eval::LongBenchScorer& scorer, AnswerRun& model,
                                    Session& session) {
    const auto tasks = chosen_tasks(command);
    for (const auto* task : tasks) scorer.check(*task);
    std::vector<DatasetRun> runs;
    session.progress().begin("reading prompts", std::ssize(tasks));
    for (const auto* task : tasks) {
        core::throw_if_stopped(session.stop());
        runs.push_back(prepare(command, *task, model));
        session.progress().update(std::ssize(runs), std::string(task->dataset));
    }
    session.progress().end();
    for (const auto& run : runs) {
        note_left_out(run.left_out, run.all_rows(), session);
        require_questions(run.questions.size(), run.left_out, run.data.files.front());
    }
    return runs;
}

core::OrderedJson scored(const DatasetRun& run, eval::LongBenchScorer& scorer, const eval::ResultsFile& results) {
    double sum = 0;
    std::int64_t prompt_tokens = 0, generated_tokens = 0;
    for (std::size_t i = 0; i < run.questions.size(); ++i) {
        const auto answer = eval::answer_of(run.questions[i], results);
        sum += scorer.score(*run.data.task, answer.text, *run.rows[i]);
        prompt_tokens += answer.prompt_tokens;
        generated_tokens += answer.generated_tokens;
    }
    const auto rows = run.questions.size();
    return {{"dataset", run.data.task->dataset},
            {"file", run.data.files.front().string()},
            {"score", 100 * sum / static_cast<double>(rows)},
            {"rows", rows},
            {"left_out", run.left_out.size()},
            {"max_length", run.max_length},
            {"max_tokens", run.data.max_tokens},
            {"prompt_tokens", prompt_tokens},
            {"generated_tokens", generated_tokens},
            {"seconds", run.seconds}};
}

std::string score_text(const core::OrderedJson& score) { return fmt::format("{:.2f}", score.get<double>()); }

std::string table(const core::OrderedJson& report) {
    std::string text =
        "| dataset | score | rows | left out | prompt tokens | generated tokens |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n";
    for (const auto& row : report["datasets"]) {
        text += fmt::format("| {} | {} | {} | {} | {} | {} |\n", row["dataset"].get<std::string>(),
                            score_text(row["score"]), row["rows"].get<int>(), row["left_out"].get<int>(),
                            row["prompt_tokens"].get<std::int64_t>(), row["generated_tokens"].get<std::int64_t>());
    }
    if (report["datasets"].size() > 1) text += fmt::format("| mean | {} | | | | |\n", score_text(report["mean"]));
    return text;
}

/// Of the datasets, each counted once, as LongBench does.
double mean_score(const core::OrderedJson& datasets) {
    double sum = 0;
    for (const auto& row : datasets) sum += row["score"].get<double>();
    return sum / static_cast<double>(datasets.size());
}

void print(const std::vector<DatasetRun>& runs, core::OrderedJson datasets, const AnswerRun& model, Session& session) {
    std::vector<std::string> left_out;
    std::size_t rows = 0;
    for (const auto& run : runs) {
        left_out.insert(left_out.end(), run.left_out.begin(), run.left_out.end());
        rows += run.all_rows();
    }
    core::OrderedJson report{{"task", "longbench"}, {"mean", mean_score(datasets)}, {"datasets", std::move(datasets)}};
    report.update(model.report(left_out));
    session.print(report, table(report) + table_remark(report["kv_cache"], left_out.size(), rows));
}

}  // namespace

void eval_longbench(const EvalCommand& command, Session& session) {
    require_option(command.data, "--data", command);
    eval::LongBenchScorer scorer(command.answers.jieba);
    AnswerRun model(command, session);
    auto runs = prepare_all(command, scorer, model, session);
    std::vector<std::filesystem::path> files;
    for (const auto& run : runs) files.insert(files.end(), run.data.files.begin(), run.data.files.end());
    auto results = results_file(command, files,
                                {{"datasets", command.answers.datasets},
                                 {"chat", model.chat().name},
                                 {"max_length", command.answers.max_length},
                                 {"context", model.context_tokens()}});
    core::OrderedJson datasets = core::OrderedJson::array();
    for (auto& run : runs) {
        const double before = model.seconds();
        model.answer(run.questions, results);
        run.seconds = model.seconds() - before;
        datasets.push_back(scored(run, scorer, results));
        session.note(fmt::format("{}: {}", run.data.task->dataset, score_text(datasets.back()["score"])));
    }
    print(runs, std::move(datasets), model, session);
}

void add_answer_options(CLI::App& verb, EvalCommand& command) {
    auto& options = command.answers;
    verb.add_option("--dataset", options.datasets,
                    "Of LongBench: those to run, separated by commas; default: all there")
        ->delimiter(',')
        ->type_name("NAMES");
    verb.add_option("--chat", options.chat,
                    "Chat template: auto (the model's), none, chatml, llama2, llama3 or mistral")
        ->capture_default_str();
    verb.add_option("--jieba", options.jieba, "Folder of the PyPI package jieba, for LongBench's Chinese scores")
        ->type_name("DIR");
    verb.add_option("--max-length", options.max_length,
                    "Of LongBench: longer prompts lose their middle; tokens, 0 = as many as the context holds, which "
                    "is the most")
        ->check(CLI::Range(0, 1 << 24))
        ->capture_default_str();
    verb.add_option("--lengths", options.lengths, "Of needle: tokens of the prompts")
        ->delimiter(',')
        ->check(CLI::Range(1, 1 << 24))
        ->capture_default_str();
    verb.add_option("--depths", options.depths, "Of needle: where in the text it lies, in percent")
        ->delimiter(',')
        ->check(CLI::Range(0, 100))
        ->capture_default_str();
    verb.add_option("--needles", options.needles, "Of needle: prompts of each length and depth")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    verb.add_option("--plot", options.plot, "Of needle: heat map of the scores (SVG)")->type_name("FILE");
}

}  // namespace mha2mla::cli
