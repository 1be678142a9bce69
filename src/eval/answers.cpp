#include "eval/answers.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/json.h"
#include "runtime/engine.h"

namespace mha2mla::eval {
namespace {

std::vector<const Question*> unanswered(std::span<const Question> questions, const ResultsFile& results) {
    std::vector<const Question*> open;
    for (const auto& question : questions) {
        if (results.find(question.id) == nullptr) open.push_back(&question);
    }
    return open;
}

runtime::GenerateOptions options_of(const Question& question) {
    return {.max_tokens = question.max_tokens, .stop_tokens = question.stop_tokens, .min_tokens = question.min_tokens};
}

void keep(const Question& question, std::span<const int> generated, const Answerer& answerer, ResultsFile& results) {
    results.add(question.id, {{"text", answerer.words.decode(generated)},
                              {"prompt_tokens", question.prompt.size()},
                              {"generated_tokens", generated.size()}});
}

void answer_all(const Answerer& answerer, std::span<const Question* const> questions, ResultsFile& results,
                core::Progress& progress, const std::stop_token& stop) {
    runtime::Engine engine(answerer.decoder, answerer.pool, answerer.parallel);
    for (const auto* question : questions)
        engine.submit({.prompt = question->prompt, .options = options_of(*question)});
    std::int64_t finished = 0;
    bool more = true;
    while (more) {
        core::throw_if_stopped(stop);
        more = engine.step([&](const runtime::EngineResult& result) {
            keep(*questions[static_cast<std::size_t>(result.id)], result.generated, answerer, results);
            ++finished;
        });
        const auto stats = engine.stats();
        progress.update(finished,
                        fmt::format("{} prompt tokens, {} generated", stats.prompt_tokens, stats.generated_tokens));
    }
}

}  // namespace

void answer(const Answerer& answerer, std::span<const Question> questions, ResultsFile& results,
            core::Progress& progress, const std::stop_token& stop) {
    const auto open = unanswered(questions, results);
    if (open.empty()) return;
    progress.begin("answering", std::ssize(open));
    answer_all(answerer, open, results, progress, stop);
    progress.end();
}

Answer answer_of(const Question& question, const ResultsFile& results) {
    const auto* result = results.find(question.id);
    core::invariant(result != nullptr, "the question was answered");
    constexpr std::int64_t most = std::int64_t{1} << 30;
    const core::JsonObject fields(*result, results.where(question.id));
    return {.text = fields.string("text"),
            .prompt_tokens = static_cast<int>(fields.integer("prompt_tokens", 0, most)),
            .generated_tokens = static_cast<int>(fields.integer("generated_tokens", 0, most))};
}

}  // namespace mha2mla::eval
