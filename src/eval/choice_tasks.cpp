#include "eval/choice_tasks.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <utility>

#include "core/error.h"
#include "data/gzip.h"
#include "data/lines.h"
#include "eval/choice_rows.h"
#include "eval/usable_rows.h"

namespace mha2mla::eval {
namespace {

constexpr int examples_per_subject = 5;  // as MMLU is published

std::filesystem::path find_file(const std::vector<std::string_view>& names, const std::filesystem::path& data) {
    if (!std::filesystem::is_directory(data)) return data;
    for (const auto name : names) {
        if (std::filesystem::exists(data / name)) return data / name;
    }
    throw core::Error({.what = "the folder does not hold the benchmark",
                       .expected = fmt::format("one of {}", fmt::join(names, ", ")),
                       .where = data.string(),
                       .remedy = "pass its file by --data"});
}

bool holds_requests(const std::filesystem::path& file) {
    const std::string name = file.filename().string();
    return name.ends_with("requests.jsonl") || name.ends_with("requests.jsonl.gz");
}

ChoiceQuestions read_rows(const ChoiceTask& task, const std::filesystem::path& file, int limit) {
    ChoiceQuestions rows{.file = file};
    const auto take = [&](const core::JsonObject& row, int number) {
        rows.questions.push_back(task.read(row));
        rows.questions.back().id = std::to_string(number - 1);
    };
    rows.left_out = for_each_usable_row(file, limit, take, [](const core::JsonObject&) {});
    return rows;
}

/// "abstract_algebra" -> what MMLU's prompts begin with.
std::string description_of(std::string subject) {
    std::replace(subject.begin(), subject.end(), '_', ' ');
    return "The following are multiple choice questions (with answers) about " + subject + ".\n\n";
}

/// The first examples of each subject, answered.
std::map<std::string, std::string> worked_examples(const std::vector<ChoiceQuestion>& examples) {
    std::map<std::string, std::string> texts;
    std::map<std::string, int> counts;
    for (const auto& example : examples) {
        auto& text = texts.try_emplace(example.subject, description_of(example.subject)).first->second;
        if (counts[example.subject]++ >= examples_per_subject) continue;
        const auto& right = example.choices[example.answer];
        text += right.context + right.continuation + "\n\n";
    }
    return texts;
}

/// The file of worked examples, which lies beside the questions.
std::filesystem::path find_examples(const ChoiceTask& task, const std::filesystem::path& questions) {
    const auto file = questions.parent_path() / task.examples_file;
    if (questions.filename() == task.examples_file) {
        throw core::Error({.what = "these rows are the worked examples before the benchmark's questions",
                           .expected = fmt::format("{}", fmt::join(task.files, ", ")),
                           .where = questions.string()});
    }
    if (std::filesystem::exists(file)) return file;
    throw core::Error({.what = fmt::format("the worked examples of {} are missing", task.name),
                       .expected = std::string(task.examples_file),
                       .where = questions.parent_path().string(),
                       .remedy = "put that file beside the questions"});
}

void add_examples(ChoiceQuestions& rows, const ChoiceTask& task) {
    const auto file = find_examples(task, rows.file);
    const auto examples = worked_examples(read_rows(task, file, 0).questions);
    for (auto& question : std::exchange(rows.questions, {})) {
        const auto found = examples.find(question.subject);
        if (found == examples.end()) {
            rows.left_out.push_back(fmt::format("{}, question {}: its subject '{}' has no examples in {}",
                                                rows.file.string(), question.id, question.subject, file.string()));
            continue;
        }
        for (auto& choice : question.choices) choice.context = found->second + choice.context;
        rows.questions.push_back(std::move(question));
    }
}

/// The answers that a line's document names; none where it does not.
std::vector<std::string> document_choices(const core::JsonObject& line) {
    if (!line.has("doc") || !line.object("doc").has("choices")) return {};
    return line.object("doc").strings("choices");
}

std::size_t characters_of(const core::JsonObject& line, std::size_t index, const std::string& continuation) {
    const auto choices = document_choices(line);
    if (choices.empty()) return count_characters(continuation);
    if (index >= choices.size()) line.fail("idx", fmt::format("less than {}, the number of choices", choices.size()));
    return count_characters(choices[index]);
}

/// Adds a line to the question that it belongs to.
void add_request(ChoiceQuestion& question, const core::JsonObject& line) {
    constexpr std::int64_t most_choices = 1000;
    const auto request = line.object("request");
    const auto index = line.integer("idx", 0, most_choices);
    if (index != std::ssize(question.choices)) {
        line.fail("idx",
                  fmt::format("{}: the choices of a question stand together, in order", question.choices.size()));
    }
    const auto answer = static_cast<std::size_t>(line.integer("label", 0, most_choices));
    if (index > 0 && answer != question.answer) line.fail("label", "that of the question's other choices");
    question.answer = answer;
    const auto continuation = request.string("continuation");
    if (continuation.empty()) request.fail("continuation", "a text");
    question.choices.push_back({.context = request.string("context"),
                                .continuation = continuation,
                                .characters = characters_of(line, static_cast<std::size_t>(index), continuation)});
}

/// Ready requests may say what they are of: "arc_easy", "hellaswag:mc".
void check_benchmark(const core::JsonObject& line, std::string_view benchmark) {
    auto name = line.string_or("task_name", std::string(benchmark));
    std::replace(name.begin(), name.end(), '_', '-');
    if (name.starts_with(benchmark)) return;
    throw core::Error({.what = "the file holds requests of another benchmark",
                       .expected = std::string(benchmark),
                       .got = name,
                       .where = line.where(),
                       .remedy = "--task requests scores those of any"});
}

/// Whether the last question has fewer choices than its document names or, where it names none, than all others.
bool is_cut_off(const std::vector<ChoiceQuestion>& questions, std::size_t choices_named) {
    if (questions.empty()) return false;
    const std::size_t count = questions.back().choices.size();
    if (choices_named > 0) return count < choices_named;
    return questions.size() > 1 && std::all_of(questions.begin(), questions.end() - 1,
                                               [&](const auto& question) { return question.choices.size() > count; });
}

void check_answer(const ChoiceQuestion& question, const std::filesystem::path& file) {
    if (question.answer < question.choices.size()) return;
    throw core::Error({.what = "a question lacks its right choice",
                       .expected = fmt::format("choice {}", question.answer),
                       .got = fmt::format("{} choices", question.choices.size()),
                       .where = fmt::format("{}, question {}", file.string(), question.id)});
}

}  // namespace

const std::vector<ChoiceTask>& choice_tasks() {
    static const std::vector<ChoiceTask> tasks{
        {"mmlu", {"mmlu_validation.jsonl", "mmlu_test.jsonl", "mmlu.jsonl"}, read_mmlu, "mmlu_dev.jsonl"},
        {"arc-easy", {"ai2_arc_ARC-Easy_validation.jsonl", "ai2_arc_ARC-Easy_test.jsonl", "arc_easy.jsonl"}, read_arc},
        {"arc-challenge",
         {"ai2_arc_ARC-Challenge_validation.jsonl", "ai2_arc_ARC-Challenge_test.jsonl", "arc_challenge.jsonl"},
         read_arc},
        {"piqa", {"piqa_plain_text_validation.jsonl", "piqa.jsonl"}, read_piqa},
        {"hellaswag",
         {"hellaswag_default_validation.jsonl", "hellaswag.jsonl", "hellaswag-1000/rc_5shot/requests.jsonl.gz"},
         read_hellaswag},
        {"openbookqa", {"openbookqa_main_validation.jsonl", "openbookqa.jsonl"}, read_openbookqa},
        {"commonsenseqa",
         {"tau_commonsense_qa_none_validation.jsonl", "commonsense_qa_default_validation.jsonl", "commonsenseqa.jsonl"},
         read_commonsenseqa},
        {"winogrande", {"winogrande_winogrande_xl_validation.jsonl", "winogrande.jsonl"}, read_winogrande},
    };
    return tasks;
}

const ChoiceTask* find_choice_task(std::string_view name) {
    const auto& tasks = choice_tasks();
    const auto found =
        std::find_if(tasks.begin(), tasks.end(), [&](const ChoiceTask& task) { return task.name == name; });
    return found == tasks.end() ? nullptr : &*found;
}

ChoiceQuestions read_questions(const ChoiceTask& task, const std::filesystem::path& data, int limit) {
    const auto file = std::filesystem::absolute(find_file(task.files, data));
    if (holds_requests(file)) return read_requests(file, limit, task.name);
    auto rows = read_rows(task, file, limit);
    if (!task.examples_file.empty()) add_examples(rows, task);
    return rows;
}

ChoiceQuestions read_requests(const std::filesystem::path& file, int limit, std::string_view benchmark) {
    ChoiceQuestions rows{.file = file};
    auto& questions = rows.questions;
    core::Json document;
    std::size_t choices_named = 0;
    bool full = false;
    data::for_each_json_line(data::read_maybe_gzipped(file), file.string(), [&](const core::JsonObject& line) {
        const bool begins = questions.empty() || line.raw("doc_id") != document;
        full = full || (begins && limit > 0 && std::ssize(questions) == limit);
        if (full) return;
        if (begins) questions.push_back({.id = std::to_string(questions.size())});
        document = line.raw("doc_id");
        choices_named = document_choices(line).size();
        check_benchmark(line, benchmark);
        add_request(questions.back(), line);
    });
    if (is_cut_off(questions, choices_named)) {
        rows.left_out.push_back(fmt::format("{}: the file ends before the last choices of question {}", file.string(),
                                            questions.back().id));
        questions.pop_back();
    }
    if (questions.empty()) throw core::Error({.what = "there are no requests", .where = file.string()});
    for (const auto& question : questions) check_answer(question, file);
    return rows;
}

}  // namespace mha2mla::eval
