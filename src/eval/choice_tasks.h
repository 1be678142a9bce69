#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "eval/choice_question.h"

namespace mha2mla::eval {

/// A benchmark of multiple-choice questions.
struct ChoiceTask {
    std::string_view name;                ///< of --task
    std::vector<std::string_view> files;  ///< names of its file in a folder; the first that is there counts
    ChoiceQuestion (*read)(const core::JsonObject& row);
    std::vector<std::string_view> request_names;  ///< "task_name" of its ready requests
    std::string_view examples_file = {};          ///< of worked examples, beside the questions; none: these stand alone
};

const std::vector<ChoiceTask>& choice_tasks();
/// Null where no benchmark has that name.
const ChoiceTask* find_choice_task(std::string_view name);

/// Benchmarks may have the same fields: a file under the published name of another one than `task` is an Error.
void check_published_name(std::string_view task, const std::filesystem::path& file);

struct ChoiceQuestions {
    std::vector<std::filesystem::path> files = {};  ///< absolute: that of the questions, then of worked examples
    std::vector<ChoiceQuestion> questions = {};
    std::vector<std::string> left_out = {};  ///< why a row is no question, naming its line
};

/// The questions in the first `limit` rows of a benchmark (0: all), examples before them. `data` is its file or a
/// folder that holds it under one of its names. Ready requests (a name that ends in requests.jsonl or
/// requests.jsonl.gz) are read as such. A subject with too few examples leaves its questions out. Throws Error naming
/// the files that were looked for, or a file without a question of the benchmark.
ChoiceQuestions read_questions(const ChoiceTask& task, const std::filesystem::path& data, int limit);

/// Ready log-likelihood requests, a line each: "doc_id" (one number a question, its lines together), "request"
/// {"context", "continuation"}, "idx" (number of the choice, in order), "label" (that of the right one), "doc" with
/// "choices" where their characters shall count for accuracy_norm, else those of the continuations count. Where the
/// file ends before a question's last choices, it is left out. Throws Error for a line that does not fit, as one that
/// is missing would change the question it belongs to, and for a "task_name" of another benchmark than `task`, if any.
ChoiceQuestions read_requests(const std::filesystem::path& file, int limit, const ChoiceTask* task = nullptr);

}  // namespace mha2mla::eval
