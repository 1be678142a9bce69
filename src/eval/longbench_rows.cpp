#include <algorithm>
#include <fmt/format.h>
#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "eval/answer_metrics.h"
#include "eval/answer_metrics_text.h"
#include "eval/longbench.h"
#include "eval/rouge.h"
#include "eval/usable_rows.h"

namespace mha2mla::eval {
namespace {
namespace fs = std::filesystem;

constexpr int most_answer_tokens = 1 << 16;

/// Of a task, where it is there.
std::optional<fs::path> find_rows(const fs::path& folder, const LongBenchTask& task) {
    const std::string name = std::string(task.dataset) + ".jsonl";
    for (const auto& path : {folder / name, folder / ("longbench-" + name)}) {
        if (fs::exists(path)) return path;
    }
    return std::nullopt;
}

fs::path rows_path(const fs::path& folder, const LongBenchTask& task) {
    if (const auto found = find_rows(folder, task)) return *found;
    throw core::Error({.what = fmt::format("the folder does not hold {}", task.dataset),
                       .expected = fmt::format("{0}.jsonl or longbench-{0}.jsonl", task.dataset),
                       .where = folder.string(),
                       .remedy = "name others by --dataset"});
}

fs::path config_path(const fs::path& folder, const char* name) {
    for (const auto& path : {folder / name, folder / "longbench-config" / name}) {
        if (fs::exists(path)) return path;
    }
    throw core::Error({.what = fmt::format("LongBench's {} is missing", name),
                       .where = folder.string(),
                       .remedy = "put it there, or into longbench-config below"});
}

void check_folder(const fs::path& folder) {
    if (fs::is_directory(folder)) return;
    throw core::Error(
        {.what = "is no folder", .where = folder.string(), .remedy = "name the one that holds LongBench"});
}

core::Json read_config(const fs::path& path) { return core::parse_json(core::read_text(path), path.string()); }

/// Python's str.format with the fields of a row: {context}, {input}; {{ and }} are braces.
std::string format_prompt(std::string_view format, const core::JsonObject& row) {
    std::string prompt;
    while (!format.empty()) {
        const std::size_t brace = std::min(format.find_first_of("{}"), format.size());
        prompt += format.substr(0, brace);
        format.remove_prefix(brace);
        if (format.empty()) break;
        const std::size_t end = format.find('}');
        if (format.size() > 1 && format[1] == format[0]) {
            prompt += format[0];
            format.remove_prefix(2);
        } else if (format[0] == '{' && end != std::string_view::npos) {
            prompt += row.string(std::string(format.substr(1, end - 1)).c_str());
            format.remove_prefix(end + 1);
        } else {
            throw core::Error({.what = "a prompt has a brace without its partner", .where = "dataset2prompt.json"});
        }
    }
    return prompt;
}

/// ROUGE compares sentences word by word; Chinese has no more words than characters.
void check_sentences(const LongBenchTask& task, const LongBenchRow& row, const core::JsonObject& fields) {
    if (task.metric != AnswerMetric::rouge && task.metric != AnswerMetric::rouge_zh) return;
    for (const auto& answer : row.answers) {
        const std::size_t words =
            task.metric == AnswerMetric::rouge ? longest_sentence(answer) : to_code_points(answer).size();
        if (words > most_sentence_words) {
            fields.fail("answers",
                        fmt::format("sentences of at most {} words (Chinese: characters)", most_sentence_words));
        }
    }
}

/// What only shows when an answer is scored.
void check_answers(const LongBenchTask& task, const LongBenchRow& row, const core::JsonObject& fields) {
    if (row.answers.empty()) fields.fail("answers", "at least one");
    check_sentences(task, row, fields);
    if (task.metric == AnswerMetric::classification && row.classes.empty()) fields.fail("all_classes", "at least one");
    if (task.metric != AnswerMetric::retrieval && task.metric != AnswerMetric::retrieval_zh) return;
    LongBenchScorer("").score(task, "", row);
}

/// A row of another dataset means that the whole file is another one.
void check_dataset(const core::JsonObject& fields, const LongBenchTask& task) {
    const auto dataset = fields.string_or("dataset", std::string(task.dataset));
    if (dataset == task.dataset) return;
    throw core::Error({.what = "the file holds rows of another dataset",
                       .expected = std::string(task.dataset),
                       .got = dataset,
                       .where = fields.where()});
}

LongBenchRow parse_row(const core::JsonObject& fields, const LongBenchTask& task, std::string_view format) {
    LongBenchRow row;
    row.prompt = format_prompt(format, fields);
    row.answers = fields.strings("answers");
    if (fields.has("all_classes")) row.classes = fields.strings("all_classes");
    check_answers(task, row, fields);
    return row;
}

}  // namespace

std::vector<const LongBenchTask*> longbench_tasks_in(const fs::path& folder) {
    check_folder(folder);
    std::vector<const LongBenchTask*> found;
    for (const auto& task : longbench_tasks()) {
        if (find_rows(folder, task)) found.push_back(&task);
    }
    if (!found.empty()) return found;
    throw core::Error(
        {.what = "no rows of LongBench are here",
         .expected = "<dataset>.jsonl, for example qasper.jsonl",
         .where = folder.string(),
         .remedy = "unpack data.zip of LongBench there, with dataset2prompt.json and dataset2maxlen.json"});
}

LongBenchData read_longbench(const fs::path& folder, const LongBenchTask& task, int limit) {
    check_folder(folder);
    const std::string name(task.dataset);
    const auto place = core::absolute_target(folder);
    LongBenchData data{.task = &task,
                       .files = {rows_path(place, task), config_path(place, "dataset2prompt.json"),
                                 config_path(place, "dataset2maxlen.json")}};
    const auto prompts = read_config(data.files[1]), lengths = read_config(data.files[2]);
    const auto format = core::JsonObject(prompts, "dataset2prompt.json").string(name.c_str());
    data.max_tokens =
        static_cast<int>(core::JsonObject(lengths, "dataset2maxlen.json").integer(name.c_str(), 1, most_answer_tokens));
    data.left_out = for_each_usable_row(
        data.files[0], limit,
        [&](const core::JsonObject& fields, int line) {
            auto row = parse_row(fields, task, format);
            row.id = fmt::format("{}/{}", name, line);
            data.rows.push_back(std::move(row));
        },
        [&](const core::JsonObject& fields) { check_dataset(fields, task); });
    return data;
}

}  // namespace mha2mla::eval
