#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/eval_command.h"
#include "data/chat_template.h"
#include "eval/answers.h"

namespace mha2mla::cli {

/// A model that answers questions. It is opened at once, so that prompts can be made and checked; its weights are
/// loaded when the first question is to be answered.
class AnswerRun {
public:
    AnswerRun(const EvalCommand& command, Session& session);

    const tokenizer::Tokenizer& words() const { return *words_; }
    const data::ChatTemplate& chat() const { return chat_; }
    /// What the model or --context allows for a prompt and its answer.
    int context_tokens() const { return context_; }

    /// The prompt, as a message where it is one, with what ends an answer.
    eval::Question question(const std::string& id, const std::string& prompt, bool is_message, int max_tokens) const;
    /// Why the context does not hold a question and its answer; none where it does, and then the cache is made for it.
    std::optional<std::string> admit(const eval::Question& question);

    /// Each answers what `results` lacks.
    void answer(std::span<const eval::Question> questions, eval::ResultsFile& results);
    double seconds() const { return seconds_; }  ///< in answer()

    /// "chat", "seconds", "left_out", "run" and "kv_cache" for the report.
    core::OrderedJson report(const std::vector<std::string>& left_out) const;

private:
    runtime::Decoder& decoder();

    const EvalCommand& command_;
    Session& session_;
    checkpoint::Checkpoint model_;
    std::unique_ptr<tokenizer::Tokenizer> words_;
    data::ChatTemplate chat_;
    int context_;
    int longest_ = 1;  // tokens of an admitted question and its answer
    int admitted_ = 0;
    std::vector<int> answer_stops_;
    std::unique_ptr<runtime::Decoder> decoder_;
    double seconds_ = 0;
};

/// Names the first few of the rows that are left out, with their reasons, on stderr, and counts the others.
void note_left_out(const std::vector<std::string>& left_out, std::size_t rows, Session& session);

/// Throws Error where nothing of a file is left to be measured.
void require_questions(std::size_t questions, const std::vector<std::string>& left_out,
                       const std::filesystem::path& file);

/// Below a table: "int4 cache, 2553 bytes a token; 3 of 200 rows are left out".
std::string table_remark(const core::OrderedJson& kv_cache, std::size_t left_out, std::size_t rows);

/// "3 of 200 rows are left out"; "" where none is.
std::string left_out_line(std::size_t left_out, std::size_t rows);

}  // namespace mha2mla::cli
