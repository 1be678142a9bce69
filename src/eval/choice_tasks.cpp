#include "eval/choice_tasks.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>

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
    ChoiceQuestions rows;
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

void add_examples(std::vector<ChoiceQuestion>& questions, const ChoiceTask& task, const std::filesystem::path& file) {
    const auto examples = worked_examples(read_rows(task, file, 0).questions);
    for (auto& question : questions) {
        const auto found = examples.find(question.subject);
        if (found == examples.end()) {
            throw core::Error({.what = "a subject has no examples", .got = question.subject, .where = file.string()});
        }
        for (auto& choice : question.choices) choice.context = found->second + choice.context;
    }
}

std::size_t characters_of(const core::JsonObject& line, std::size_t index, const std::string& continuation) {
    if (!line.has("doc") || !line.object("doc").has("choices")) return count_characters(continuation);
    const auto choices = line.object("doc").strings("choices");
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
        {"mmlu", {"mmlu_validation.jsonl", "mmlu_test.jsonl", "mmlu.jsonl"}, read_mmlu, {"mmlu_dev.jsonl"}},
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
    if (holds_requests(file)) return read_requests(file, limit);
    auto rows = read_rows(task, file, limit);
    if (!task.examples_files.empty()) {
        add_examples(rows.questions, task, find_file(task.examples_files, file.parent_path()));
    }
    return rows;
}

ChoiceQuestions read_requests(const std::filesystem::path& file, int limit) {
    std::vector<ChoiceQuestion> questions;
    core::Json document;
    bool full = false;
    data::for_each_json_line(data::read_maybe_gzipped(file), file.string(), [&](const core::JsonObject& line) {
        const bool begins = questions.empty() || line.raw("doc_id") != document;
        full = full || (begins && limit > 0 && std::ssize(questions) == limit);
        if (full) return;
        if (begins) questions.push_back({.id = std::to_string(questions.size())});
        document = line.raw("doc_id");
        add_request(questions.back(), line);
    });
    if (questions.empty()) throw core::Error({.what = "there are no requests", .where = file.string()});
    for (const auto& question : questions) check_answer(question, file);
    return {std::move(questions)};
}

}  // namespace mha2mla::eval
