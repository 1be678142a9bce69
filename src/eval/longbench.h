#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/chinese_words.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::eval {

// LongBench v1 (Bai et al., arXiv 2308.14508): 21 tasks of long prompts with short answers, its prompts, lengths,
// truncation and scores as its pred.py and eval.py have them.

enum class AnswerMetric { f1, f1_zh, rouge, rouge_zh, classification, count, retrieval, retrieval_zh, code };

struct LongBenchTask {
    std::string_view dataset;
    AnswerMetric metric;
    bool chats = true;             ///< the prompt becomes a chat model's message
    bool first_line = false;       ///< only this of an answer counts
    bool ends_at_newline = false;  ///< so does generating

    bool needs_chinese_words() const { return metric == AnswerMetric::f1_zh || metric == AnswerMetric::rouge_zh; }
};

/// All 21, in the paper's order.
std::span<const LongBenchTask> longbench_tasks();
/// Throws Error for another name.
const LongBenchTask& longbench_task(std::string_view dataset);

struct LongBenchRow {
    std::string id;      ///< "multi_news/17": its line
    std::string prompt;  ///< context and input in the dataset's prompt
    std::vector<std::string> answers;
    std::vector<std::string> classes;
};

struct LongBenchData {
    const LongBenchTask* task = nullptr;
    std::vector<std::filesystem::path> files = {};  ///< absolute: rows, prompts, lengths
    int max_tokens = 0;                             ///< of an answer
    std::vector<LongBenchRow> rows = {};
    std::vector<std::string> left_out = {};  ///< rows that cannot be asked, and why: "x.jsonl, line 3: ..."
};

/// The tasks whose rows, `<dataset>.jsonl` or `longbench-<dataset>.jsonl`, lie in the folder. Throws Error where none
/// does.
std::vector<const LongBenchTask*> longbench_tasks_in(const std::filesystem::path& folder);

/// The first `limit` rows of a task (0: all), prompts and lengths from dataset2prompt.json and dataset2maxlen.json in
/// the folder or in longbench-config below it. A damaged row is left out and named; a missing file, a row of another
/// dataset, or no row left is an Error.
LongBenchData read_longbench(const std::filesystem::path& folder, const LongBenchTask& task, int limit);

/// A prompt of more than `most` tokens becomes its first and last most / 2 tokens, decoded to text.
std::string truncate_middle(std::string prompt, int most, const tokenizer::Tokenizer& words);

/// Scores answers. jieba's dictionary is read when the first Chinese answer needs it.
class LongBenchScorer {
public:
    /// `jieba`: folder of the package; may be empty where no task is Chinese.
    explicit LongBenchScorer(std::filesystem::path jieba) : jieba_(std::move(jieba)) {}

    /// Throws Error where the task needs a dictionary that is not there.
    void check(const LongBenchTask& task);
    /// The best over the row's answers, 0 to 1.
    double score(const LongBenchTask& task, std::string_view prediction, const LongBenchRow& row);

private:
    double score(AnswerMetric metric, std::string_view prediction, const std::string& answer, const LongBenchRow& row);
    std::vector<std::string> cut(std::string_view text);

    std::filesystem::path jieba_;
    std::unique_ptr<const ChineseWords> chinese_;
};

}  // namespace mha2mla::eval
