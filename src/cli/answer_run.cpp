#include "cli/answer_run.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>

#include "cli/kv_cache_report.h"
#include "core/error.h"

namespace mha2mla::cli {
namespace {

/// EOS, and what a chat model ends its turn with.
std::vector<int> answer_stops(const checkpoint::ModelConfig& config, const data::ChatTemplate& chat,
                              const tokenizer::Tokenizer& words) {
    auto stops = config.eos_token_ids;
    const auto end = chat.end.empty() ? std::nullopt : words.id_of(chat.end);
    if (end && std::find(stops.begin(), stops.end(), *end) == stops.end()) stops.push_back(*end);
    return stops;
}

}  // namespace

AnswerRun::AnswerRun(const EvalCommand& command, Session& session)
    : command_(command),
      session_(session),
      model_(checkpoint::Checkpoint::open(command.model.path)),
      words_(load_tokenizer(model_)),
      chat_(data::chat_template(command.answers.chat, data::chat_template_text(model_.tokenizer_files()))),
      context_(allowed_context(command, model_.config())),
      answer_stops_(answer_stops(model_.config(), chat_, *words_)) {}

eval::Question AnswerRun::question(const std::string& id, const std::string& prompt, bool is_message,
                                   int max_tokens) const {
    return {.id = id,
            .prompt = words_->encode(is_message ? chat_.wrap(prompt) : prompt, true),
            .max_tokens = max_tokens,
            .stop_tokens = answer_stops_};
}

std::optional<std::string> AnswerRun::admit(const eval::Question& question) {
    const auto tokens = std::ssize(question.prompt) + question.max_tokens;
    if (question.prompt.empty()) return question.id + ": the prompt has no tokens";
    if (tokens > context_) {
        return fmt::format("{}: the prompt has {} tokens, its answer up to {}, and the context holds {}", question.id,
                           question.prompt.size(), question.max_tokens, context_);
    }
    longest_ = std::max(longest_, static_cast<int>(tokens));
    ++admitted_;
    return std::nullopt;
}

runtime::Decoder& AnswerRun::decoder() {
    if (decoder_) return *decoder_;
    auto options = command_.model.decoder;
    options.context_tokens = longest_;
    options.as_decoded = true;
    options.sequences = std::min(command_.parallel, admitted_);
    decoder_ = load_decoder(model_, options, session_);
    return *decoder_;
}

void AnswerRun::answer(std::span<const eval::Question> questions, eval::ResultsFile& results) {
    const bool is_answered = std::all_of(questions.begin(), questions.end(), [&](const eval::Question& question) {
        return results.find(question.id) != nullptr;
    });
    if (is_answered) return;
    const eval::Answerer answerer{
        .decoder = decoder(), .pool = session_.pool(), .words = *words_, .parallel = command_.parallel};
    const auto start = std::chrono::steady_clock::now();
    eval::answer(answerer, questions, results, session_.progress(), session_.stop());
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

core::OrderedJson AnswerRun::report(const std::vector<std::string>& left_out) const {
    return {{"chat", chat_.name},
            {"seconds", seconds_},
            {"left_out", left_out},
            {"run", run_report(command_)},
            {"kv_cache", kv_cache_report(model_.config(), command_.model.decoder.kv_cache)}};
}

void note_left_out(const std::vector<std::string>& left_out, std::size_t rows, Session& session) {
    constexpr std::size_t named = 5;
    for (std::size_t i = 0; i < std::min(left_out.size(), named); ++i) session.note("left out: " + left_out[i]);
    if (!left_out.empty()) session.note(left_out_line(left_out.size(), rows));
}

void require_questions(std::size_t questions, const std::vector<std::string>& left_out,
                       const std::filesystem::path& file) {
    if (questions > 0) return;
    throw core::Error({.what = "no question is left to be asked",
                       .got = left_out.empty() ? "no rows" : left_out.front(),
                       .where = file.string()});
}

std::string table_remark(const core::OrderedJson& kv_cache, std::size_t left_out, std::size_t rows) {
    const auto line = left_out_line(left_out, rows);
    return "\n" + cache_text(kv_cache) + (line.empty() ? "" : "; " + line) + "\n";
}

std::string left_out_line(std::size_t left_out, std::size_t rows) {
    if (left_out == 0) return "";
    return fmt::format("{} of {} rows {} left out", left_out, rows, left_out == 1 ? "is" : "are");
}

}  // namespace mha2mla::cli
