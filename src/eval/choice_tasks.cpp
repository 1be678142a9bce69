#include "eval/choice_tasks.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <utility>

#include "core/error.h"
#include "core/file.h"
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
    ChoiceQuestions rows{.files = {file}};
    const auto take = [&](const core::JsonObject& row, int number) {
        rows.questions.push_back(task.read(row));
        rows.questions.back().id = std::to_string(number - 1);
        rows.questions.back().where = row.where();
    };
    rows.left_out = for_each_usable_row(file, limit, take, [](const core::JsonObject&) {});
    return rows;
}

/// "abstract_algebra" -> what MMLU's prompts begin with.
std::string description_of(std::string subject) {
    std::replace(subject.begin(), subject.end(), '_', ' ');
    return "The following are multiple choice questions (with answers) about " + subject + ".\n\n";
}

struct WorkedExamples {
    std::string text;
    int count = 0;
};

/// The first examples of each subject, answered.
std::map<std::string, WorkedExamples> worked_examples(const std::vector<ChoiceQuestion>& examples) {
    std::map<std::string, WorkedExamples> by_subject;
    for (const auto& example : examples) {
        auto& worked = by_subject.try_emplace(example.subject, description_of(example.subject)).first->second;
        if (worked.count == examples_per_subject) continue;
        const auto& right = example.choices[example.answer];
        worked.text += right.context + right.continuation + "\n\n";
        ++worked.count;
    }
    return by_subject;
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

std::map<std::string, WorkedExamples> read_examples(const ChoiceTask& task, const std::filesystem::path& file) {
    const auto rows = read_rows(task, file, 0);
    if (rows.left_out.empty()) return worked_examples(rows.questions);
    throw core::Error(
        {.what = "a worked example cannot be read", .got = rows.left_out.front(), .where = file.string()});
}

void add_examples(ChoiceQuestions& rows, const ChoiceTask& task) {
    const auto file = find_examples(task, rows.files.front());
    const auto examples = read_examples(task, file);
    rows.files.push_back(file);
    for (auto& question : std::exchange(rows.questions, {})) {
        const auto found = examples.find(question.subject);
        const int count = found == examples.end() ? 0 : found->second.count;
        if (count < examples_per_subject) {
            rows.left_out.push_back(fmt::format("{}: its subject '{}' has {} of {} examples in {}", question.where,
                                                question.subject, count, examples_per_subject, file.string()));
            continue;
        }
        for (auto& choice : question.choices) choice.context = found->second.text + choice.context;
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
    if (line.has("request_type") && line.string("request_type") != "loglikelihood") {
        line.fail("request_type", "loglikelihood");
    }
    const auto continuation = request.string("continuation");
    if (continuation.empty()) request.fail("continuation", "a text");
    question.choices.push_back({.context = request.string("context"),
                                .continuation = continuation,
                                .characters = characters_of(line, static_cast<std::size_t>(index), continuation)});
}

/// Ready requests may say what they are of: "arc_easy", "hellaswag:mc", "mmlu_anatomy".
bool is_of(const ChoiceTask& task, std::string_view request_name) {
    const auto name = request_name.substr(0, request_name.find(':'));
    return std::ranges::any_of(task.request_names, [&](std::string_view known) {
        if (!name.starts_with(known)) return false;
        const bool has_subjects = !task.examples_file.empty();
        return name.size() == known.size() || (has_subjects && name[known.size()] == '_');
    });
}

void check_benchmark(const core::JsonObject& line, const ChoiceTask* task) {
    if (task == nullptr || !line.has("task_name") || is_of(*task, line.string("task_name"))) return;
    throw core::Error({.what = "the file holds requests of another benchmark",
                       .expected = fmt::format("{}", fmt::join(task->request_names, ", ")),
                       .got = line.string("task_name"),
                       .where = line.where(),
                       .remedy = "--task requests scores those of any"});
}

/// Ready requests as their lines come.
class RequestReader {
public:
    RequestReader(int limit, const ChoiceTask* task) : limit_(limit), task_(task) {}

    void take(const core::JsonObject& line) {
        if (full_) return;
        const bool begins = questions_.empty() || line.raw("doc_id") != document_;
        if (begins && lacks_choices()) line.fail("doc_id", "that of the last question, which lacks choices");
        full_ = begins && limit_ > 0 && std::ssize(questions_) == limit_;
        if (full_) return;
        if (begins) questions_.push_back({.id = std::to_string(questions_.size()), .where = line.where()});
        document_ = line.raw("doc_id");
        const auto named = document_choices(line).size();
        if (!begins && named != choices_named_) line.fail("doc", "that of the question's other choices");
        choices_named_ = named;
        check_benchmark(line, task_);
        add_request(questions_.back(), line);
    }

    /// Whether the file ends before the last question's choices do: those that its document names or, where it names
    /// none, that each question has.
    bool is_cut_off() const {
        if (full_ || questions_.empty()) return false;
        if (choices_named_ > 0) return lacks_choices();
        const std::size_t usual = questions_.front().choices.size();
        return questions_.back().choices.size() < usual &&
               std::all_of(questions_.begin(), questions_.end() - 1,
                           [&](const auto& question) { return question.choices.size() == usual; });
    }

    std::vector<ChoiceQuestion>& questions() { return questions_; }

private:
    bool lacks_choices() const { return !questions_.empty() && questions_.back().choices.size() < choices_named_; }

    int limit_;
    const ChoiceTask* task_;
    std::vector<ChoiceQuestion> questions_;
    core::Json document_;
    std::size_t choices_named_ = 0;  // by the last question's document
    bool full_ = false;
};

void check_answer(const ChoiceQuestion& question) {
    if (question.answer < question.choices.size()) return;
    throw core::Error({.what = "a question lacks its right choice",
                       .expected = fmt::format("choice {}", question.answer),
                       .got = fmt::format("{} choices", question.choices.size()),
                       .where = question.where});
}

}  // namespace

const std::vector<ChoiceTask>& choice_tasks() {
    static const std::vector<ChoiceTask> tasks{
        {"mmlu", {"mmlu_validation.jsonl", "mmlu_test.jsonl", "mmlu.jsonl"}, read_mmlu, {"mmlu"}, "mmlu_dev.jsonl"},
        {"arc-easy",
         {"ai2_arc_ARC-Easy_validation.jsonl", "ai2_arc_ARC-Easy_test.jsonl", "arc_easy.jsonl"},
         read_arc,
         {"arc_easy"}},
        {"arc-challenge",
         {"ai2_arc_ARC-Challenge_validation.jsonl", "ai2_arc_ARC-Challenge_test.jsonl", "arc_challenge.jsonl"},
         read_arc,
         {"arc_challenge"}},
        {"piqa", {"piqa_plain_text_validation.jsonl", "piqa.jsonl"}, read_piqa, {"piqa"}},
        {"hellaswag",
         {"hellaswag_default_validation.jsonl", "hellaswag.jsonl", "hellaswag-1000/rc_5shot/requests.jsonl.gz"},
         read_hellaswag,
         {"hellaswag"}},
        {"openbookqa", {"openbookqa_main_validation.jsonl", "openbookqa.jsonl"}, read_openbookqa, {"openbookqa"}},
        {"commonsenseqa",
         {"tau_commonsense_qa_none_validation.jsonl", "commonsense_qa_default_validation.jsonl", "commonsenseqa.jsonl"},
         read_commonsenseqa,
         {"commonsense_qa", "commonsenseqa", "csqa"}},
        {"winogrande",
         {"winogrande_winogrande_xl_validation.jsonl", "winogrande.jsonl"},
         read_winogrande,
         {"winogrande"}},
    };
    return tasks;
}

const ChoiceTask* find_choice_task(std::string_view name) {
    const auto& tasks = choice_tasks();
    const auto found =
        std::find_if(tasks.begin(), tasks.end(), [&](const ChoiceTask& task) { return task.name == name; });
    return found == tasks.end() ? nullptr : &*found;
}

void check_published_name(std::string_view task, const std::filesystem::path& file) {
    for (const auto& other : choice_tasks()) {
        if (other.name == task || std::ranges::count(other.files, file.filename().string()) == 0) continue;
        throw core::Error({.what = fmt::format("the file is that of {}", other.name),
                           .expected = fmt::format("that of {}", task),
                           .where = file.string(),
                           .remedy = fmt::format("pass --task {}", other.name)});
    }
}

ChoiceQuestions read_questions(const ChoiceTask& task, const std::filesystem::path& data, int limit) {
    const auto file = core::absolute_target(find_file(task.files, data));
    if (holds_requests(file)) return read_requests(file, limit, &task);
    check_published_name(task.name, file);
    auto rows = read_rows(task, file, limit);
    if (!task.examples_file.empty()) add_examples(rows, task);
    return rows;
}

ChoiceQuestions read_requests(const std::filesystem::path& file, int limit, const ChoiceTask* task) {
    if (task == nullptr) check_published_name("requests", file);
    RequestReader reader(limit, task);
    data::for_each_json_line(data::read_maybe_gzipped(file), file.string(),
                             [&](const core::JsonObject& line) { reader.take(line); });
    ChoiceQuestions rows{.files = {core::absolute_target(file)}};
    if (reader.is_cut_off()) {
        rows.left_out.push_back(
            fmt::format("{}: the file ends before the question's last choices", reader.questions().back().where));
        reader.questions().pop_back();
    }
    rows.questions = std::move(reader.questions());
    for (const auto& question : rows.questions) check_answer(question);
    if (!rows.questions.empty()) return rows;
    throw core::Error({.what = "there are no whole requests",
                       .got = rows.left_out.empty() ? "no lines" : rows.left_out.front(),
                       .where = file.string()});
}

}  // namespace mha2mla::eval
