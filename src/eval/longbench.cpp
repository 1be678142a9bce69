#include "eval/longbench.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "core/error.h"
#include "eval/answer_metrics.h"
#include "eval/rouge.h"

namespace mha2mla::eval {
namespace {

using enum AnswerMetric;

constexpr LongBenchTask chat(std::string_view dataset, AnswerMetric metric) { return {dataset, metric}; }

// The others go on from examples or code: does it chat, does the first line count, does that end the answer?
constexpr std::array tasks{
    chat("narrativeqa", f1),
    chat("qasper", f1),
    chat("multifieldqa_en", f1),
    chat("multifieldqa_zh", f1_zh),
    chat("hotpotqa", f1),
    chat("2wikimqa", f1),
    chat("musique", f1),
    chat("dureader", rouge_zh),
    chat("gov_report", rouge),
    chat("qmsum", rouge),
    chat("multi_news", rouge),
    chat("vcsum", rouge_zh),
    LongBenchTask{"trec", classification, false, true, false},
    LongBenchTask{"triviaqa", f1, false, true, false},
    LongBenchTask{"samsum", rouge, false, true, true},
    LongBenchTask{"lsht", classification, false, true, false},
    chat("passage_count", count),
    chat("passage_retrieval_en", retrieval),
    chat("passage_retrieval_zh", retrieval_zh),
    LongBenchTask{"lcc", code, false, false, false},
    LongBenchTask{"repobench-p", code, false, false, false},
};

std::string all_names() {
    std::string names;
    for (const auto& task : tasks) names += (names.empty() ? "" : ", ") + std::string(task.dataset);
    return names;
}

}  // namespace

std::span<const LongBenchTask> longbench_tasks() { return tasks; }

const LongBenchTask& longbench_task(std::string_view dataset) {
    const auto found =
        std::find_if(tasks.begin(), tasks.end(), [&](const LongBenchTask& task) { return task.dataset == dataset; });
    if (found != tasks.end()) return *found;
    throw core::Error({.what = "LongBench has no such dataset",
                       .expected = all_names(),
                       .got = std::string(dataset),
                       .where = "--dataset"});
}

std::string truncate_middle(std::string prompt, int most, const tokenizer::Tokenizer& words) {
    const auto tokens = words.encode(prompt, true);
    if (std::ssize(tokens) <= most) return prompt;
    const auto half = static_cast<std::size_t>(most / 2);
    const std::span<const int> all(tokens);
    return words.decode(all.first(half)) + words.decode(all.last(half));
}

void LongBenchScorer::check(const LongBenchTask& task) {
    if (!task.needs_chinese_words() || chinese_) return;
    if (jieba_.empty()) {
        throw core::Error(
            {.what = fmt::format("{} is scored by Chinese words, which needs jieba's dictionary", task.dataset),
             .where = "--jieba",
             .remedy = "pip install --target DIR jieba==0.42.1, then pass --jieba DIR/jieba"});
    }
    chinese_ = std::make_unique<const ChineseWords>(jieba_);
}

std::vector<std::string> LongBenchScorer::cut(std::string_view text) {
    core::invariant(chinese_ != nullptr, "the dictionary was asked for");
    return chinese_->cut(text);
}

double LongBenchScorer::score(const LongBenchTask& task, std::string_view prediction, const LongBenchRow& row) {
    check(task);
    if (task.first_line) prediction = first_line(prediction);
    double best = 0;
    for (const auto& answer : row.answers) best = std::max(best, score(task.metric, prediction, answer, row));
    return best;
}

double LongBenchScorer::score(AnswerMetric metric, std::string_view prediction, const std::string& answer,
                              const LongBenchRow& row) {
    switch (metric) {
        case f1: return token_f1(prediction, answer);
        case f1_zh: return token_f1_zh(cut(prediction), cut(answer));
        case rouge: return rouge_l(prediction, answer);
        case rouge_zh: return rouge_l(cut(prediction), cut(answer));
        case classification: return classification_score(prediction, answer, row.classes);
        case count: return count_score(prediction, answer);
        case retrieval: return retrieval_score(prediction, answer, "Paragraph ");
        case retrieval_zh: return retrieval_score(prediction, answer, "段落");
        case code: return code_similarity(prediction, answer);
    }
    return 0;
}

}  // namespace mha2mla::eval
