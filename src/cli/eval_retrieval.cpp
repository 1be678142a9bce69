#include <filesystem>
#include <fmt/format.h>

#include "cli/answer_run.h"
#include "cli/eval_command.h"
#include "core/error.h"
#include "core/file.h"
#include "data/windows.h"
#include "eval/choice_tasks.h"
#include "eval/retrieval.h"

namespace mha2mla::cli {
namespace {

constexpr int value_tokens = 64;   // of a UUID, which some vocabularies spell digit by digit
constexpr int number_tokens = 24;  // of a sentence with the secret number

struct Scores {
    int rows = 0;
    int found = 0;
    int exact = 0;
};

double percent(int part, int all) { return 100.0 * part / all; }

/// What a row's prompt is, and how long its answer may be.
struct PromptKind {
    bool is_message;
    int max_tokens;
};

/// Rows that the context holds, as questions; the reasons of the others are added to `left_out`.
std::vector<eval::Question> admitted(std::vector<eval::RetrievalRow>& rows, const PromptKind& kind, AnswerRun& model,
                                     const std::string& file, std::vector<std::string>& left_out) {
    std::vector<eval::Question> questions;
    std::vector<eval::RetrievalRow> kept;
    for (auto& row : rows) {
        auto question = model.question(row.id, row.prompt, kind.is_message, kind.max_tokens);
        if (const auto reason = model.admit(question)) {
            left_out.push_back(fmt::format("{}, {}", file, *reason));
            continue;
        }
        questions.push_back(std::move(question));
        kept.push_back(std::move(row));
    }
    rows = std::move(kept);
    return questions;
}

void key_values(const EvalCommand& command, Session& session) {
    require_option(command.data, "--data", command);
    eval::check_published_name(command.task, command.data);
    auto data = eval::read_key_values(command.data, command.limit);
    const std::size_t rows = data.rows.size() + data.left_out.size();
    AnswerRun model(command, session);
    const auto questions =
        admitted(data.rows, {.is_message = true, .max_tokens = value_tokens}, model, command.data, data.left_out);
    note_left_out(data.left_out, rows, session);
    require_questions(questions.size(), data.left_out, command.data);
    auto results =
        results_file(command, {command.data}, {{"chat", model.chat().name}, {"context", model.context_tokens()}});
    model.answer(questions, results);
    Scores scores;
    for (std::size_t i = 0; i < questions.size(); ++i) {
        const auto score = eval::score_retrieval(eval::answer_of(questions[i], results).text, data.rows[i].answer);
        ++scores.rows;
        scores.found += score.is_found;
        scores.exact += score.is_exact;
    }
    core::OrderedJson report{{"task", "kv-retrieval"},
                             {"score", percent(scores.found, scores.rows)},
                             {"exact", percent(scores.exact, scores.rows)},
                             {"rows", scores.rows}};
    report.update(model.report(data.left_out));
    session.print(report,
                  fmt::format("| rows | found | exact |\n| ---: | ---: | ---: |\n| {} | {:.2f} % | {:.2f} % |\n{}",
                              scores.rows, percent(scores.found, scores.rows), percent(scores.exact, scores.rows),
                              table_remark(report["kv_cache"], data.left_out.size(), rows)));
}

/// The questions of each cell, one cell after the other.
std::vector<eval::RetrievalRow> needle_rows(const EvalCommand& command, const std::vector<eval::NeedleCell>& cells,
                                            const AnswerRun& model, Session& session) {
    const eval::Haystack haystack(model.words(), data::read_text_file(command.text), model.chat());
    std::vector<eval::RetrievalRow> rows;
    for (const auto& cell : cells) {
        for (int i = 0; i < command.answers.needles; ++i) {
            core::throw_if_stopped(session.stop());
            rows.push_back(haystack.question(cell, i, session.options().seed));
        }
    }
    return rows;
}

std::vector<eval::NeedleCell> grid(const AnswerOptions& options) {
    std::vector<eval::NeedleCell> cells;
    for (const int length : options.lengths) {
        for (const int depth : options.depths) cells.push_back({length, depth});
    }
    return cells;
}

void check_lengths(const AnswerOptions& options, const AnswerRun& model) {
    for (const int length : options.lengths) {
        if (length + number_tokens <= model.context_tokens()) continue;
        throw core::Error({.what = "a prompt of this length and its answer are longer than the context",
                           .expected = fmt::format("at most {}", model.context_tokens() - number_tokens),
                           .got = fmt::to_string(length),
                           .where = "--lengths"});
    }
}

/// Before hours are spent, not behind them.
void check_plot(const std::string& plot) {
    if (plot.empty()) return;
    if (std::filesystem::is_directory(plot)) {
        throw core::Error({.what = "the plot is a folder", .expected = "a file", .got = plot, .where = "--plot"});
    }
    const auto folder = std::filesystem::absolute(plot).parent_path();
    if (std::filesystem::is_directory(folder)) return;
    throw core::Error({.what = "the folder of the plot does not exist", .got = folder.string(), .where = "--plot"});
}

std::string needle_table(const AnswerOptions& options, const std::vector<eval::NeedleResult>& results) {
    std::string text = "| depth |", rule = "| ---: |";
    for (const int length : options.lengths) {
        text += fmt::format(" {} |", length);
        rule += " ---: |";
    }
    text += "\n" + rule + "\n";
    for (std::size_t d = 0; d < options.depths.size(); ++d) {
        text += fmt::format("| {} % |", options.depths[d]);
        for (std::size_t l = 0; l < options.lengths.size(); ++l) {
            text += fmt::format(" {:.0f} % |", 100 * results[l * options.depths.size() + d].score);
        }
        text += "\n";
    }
    return text;
}

core::OrderedJson cells_json(const std::vector<eval::NeedleResult>& results) {
    core::OrderedJson cells = core::OrderedJson::array();
    for (const auto& result : results) {
        cells.push_back({{"length", result.cell.length}, {"depth", result.cell.depth}, {"score", 100 * result.score}});
    }
    return cells;
}

core::Json needle_settings(const EvalCommand& command, const AnswerRun& model, Session& session) {
    return {{"chat", model.chat().name},
            {"lengths", command.answers.lengths},
            {"depths", command.answers.depths},
            {"needles", command.answers.needles},
            {"seed", session.options().seed}};
}

std::vector<eval::NeedleResult> scored_cells(const std::vector<eval::NeedleCell>& cells,
                                             const std::vector<eval::RetrievalRow>& rows,
                                             const std::vector<eval::Question>& questions,
                                             const eval::ResultsFile& results) {
    const std::size_t each = questions.size() / cells.size();
    std::vector<eval::NeedleResult> scores;
    for (std::size_t i = 0; i < questions.size(); ++i) {
        if (i % each == 0) scores.push_back({cells[i / each], 0});
        const auto answer = eval::answer_of(questions[i], results);
        const bool is_found = eval::score_retrieval(answer.text, rows[i].answer).is_found;
        scores.back().score += is_found ? 1.0 / static_cast<double>(each) : 0;
    }
    return scores;
}

double mean_percent(const std::vector<eval::NeedleResult>& scores) {
    double sum = 0;
    for (const auto& score : scores) sum += 100 * score.score;
    return sum / static_cast<double>(scores.size());
}

void needles(const EvalCommand& command, Session& session) {
    require_option(command.text, "--text", command);
    check_plot(command.answers.plot);
    AnswerRun model(command, session);
    check_lengths(command.answers, model);
    const auto cells = grid(command.answers);
    auto rows = needle_rows(command, cells, model, session);
    std::vector<std::string> left_out;
    // The haystack has made messages of them already.
    const auto questions =
        admitted(rows, {.is_message = false, .max_tokens = number_tokens}, model, command.text, left_out);
    core::invariant(left_out.empty(), "the lengths were checked");
    auto results = results_file(command, {command.text}, needle_settings(command, model, session));
    model.answer(questions, results);
    const auto scores = scored_cells(cells, rows, questions, results);
    const double mean = mean_percent(scores);
    core::OrderedJson report{{"task", "needle"},
                             {"score", mean},
                             {"rows", questions.size()},
                             {"cells", cells_json(scores)},
                             {"needles", command.answers.needles},
                             {"seed", session.options().seed}};
    report.update(model.report(left_out));
    session.print(report, needle_table(command.answers, scores) +
                              fmt::format("\nmean {:.2f} %; {}\n", mean, cache_text(report["kv_cache"])));
    if (!command.answers.plot.empty()) {
        core::write_text(command.answers.plot, eval::needle_heat_map(scores, "needle: found, in percent"));
    }
}

}  // namespace

void eval_retrieval(const EvalCommand& command, Session& session) {
    return command.task == "needle" ? needles(command, session) : key_values(command, session);
}

}  // namespace mha2mla::cli
