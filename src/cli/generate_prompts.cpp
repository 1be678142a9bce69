#include "cli/generate_prompts.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <map>
#include <utility>

#include "core/error.h"
#include "core/progress.h"
#include "data/prompts.h"
#include "runtime/engine.h"

namespace mha2mla::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct TokenizedPrompt {
    std::string text;
    std::vector<int> tokens;
};

std::vector<TokenizedPrompt> read_prompts(const PromptsCommand& command, const tokenizer::Tokenizer& words,
                                          int context) {
    std::vector<TokenizedPrompt> prompts;
    for (auto& prompt : data::read_prompts(command.file)) {
        auto tokens = words.encode(prompt.text, true);
        if (std::ssize(tokens) > context) {
            throw core::Error({.what = "a prompt is longer than the context",
                               .expected = fmt::format("at most {} tokens", context),
                               .got = fmt::format("{} tokens", tokens.size()),
                               .where = prompt.where,
                               .remedy = "pass a larger --context or a shorter prompt"});
        }
        prompts.push_back({std::move(prompt.text), std::move(tokens)});
    }
    return prompts;
}

/// No larger than the prompts need: the cache is for so many at a time.
int context_for(const std::vector<TokenizedPrompt>& prompts, int max_tokens, int most) {
    std::int64_t longest = 1;
    for (const auto& prompt : prompts) longest = std::max(longest, std::ssize(prompt.tokens) + max_tokens);
    return static_cast<int>(std::min<std::int64_t>(longest, most));
}

/// Prints results in the order of their prompts.
class OrderedOutput {
public:
    OrderedOutput(const std::vector<TokenizedPrompt>& prompts, const tokenizer::Tokenizer& words, bool json)
        : prompts_(prompts), words_(words), json_(json) {}

    void add(const runtime::EngineResult& result) {
        waiting_.emplace(result.id, text_of(result));
        while (!waiting_.empty() && waiting_.begin()->first == next_) print_first();
    }

    /// What waits for an unfinished prompt before it.
    void flush() {
        while (!waiting_.empty()) print_first();
    }

private:
    void print_first() {
        const auto first = waiting_.extract(waiting_.begin());
        next_ = first.key() + 1;
        write_out(std::exchange(separator_, json_ ? "" : "\n") + first.mapped() + "\n");
    }

    std::string text_of(const runtime::EngineResult& result) const {
        const auto& prompt = prompts_[static_cast<std::size_t>(result.id)].text;
        tokenizer::Detokenizer detokenizer(words_);
        std::string text;
        for (const int token : result.generated) text += detokenizer.push(token);
        text += detokenizer.finish();
        if (!json_) return prompt + text;
        const core::OrderedJson object{{"index", result.id},
                                       {"prompt", prompt},
                                       {"text", text},
                                       {"finish_reason", name_of(result.finish)},
                                       {"prompt_tokens", result.prompt_tokens},
                                       {"reused_tokens", result.reused_tokens},
                                       {"generated_tokens", result.generated.size()},
                                       {"tokens", std::vector<int>(result.generated.begin(), result.generated.end())}};
        return object.dump(-1, ' ', false, core::OrderedJson::error_handler_t::replace);
    }

    const std::vector<TokenizedPrompt>& prompts_;
    const tokenizer::Tokenizer& words_;
    bool json_;
    std::map<runtime::RequestId, std::string> waiting_;
    runtime::RequestId next_ = 0;
    std::string separator_;  // before the next one
};

std::string throughput_text(const runtime::EngineStats& stats, std::int64_t prompts, double seconds) {
    const auto rate = [&](std::int64_t tokens) { return static_cast<double>(tokens) / seconds; };
    return fmt::format(
        "\n{} prompts in {}: {} prompt tokens at {:.1f}/s ({} more reused), {} generated at {:.1f}/s, {:.1f} tokens/s "
        "in total, {} preempted",
        prompts, core::format_duration(seconds), stats.prompt_tokens, rate(stats.prompt_tokens), stats.reused_tokens,
        stats.generated_tokens, rate(stats.generated_tokens), rate(stats.prompt_tokens + stats.generated_tokens),
        stats.preemptions);
}

/// Runs until all prompts are finished or a stop is requested; returns how many are finished.
std::int64_t run(runtime::Engine& engine, OrderedOutput& output, std::int64_t prompts, Session& session) {
    std::int64_t finished = 0;
    session.progress().begin("generating", prompts);
    while (!session.stop().stop_requested()) {
        const bool more = engine.step([&](const runtime::EngineResult& result) {
            ++finished;
            output.add(result);
        });
        if (!more) break;
        session.progress().update(finished, fmt::format("{} tokens", engine.stats().generated_tokens));
    }
    session.progress().end();
    output.flush();
    return finished;
}

}  // namespace

std::string_view name_of(runtime::FinishReason reason) {
    switch (reason) {
        case runtime::FinishReason::stop: return "stop";
        case runtime::FinishReason::length: return "length";
        case runtime::FinishReason::context: return "context";
        case runtime::FinishReason::cancelled: return "cancelled";
    }
    return "?";
}

void generate_prompts(const PromptsCommand& command, Session& session) {
    const auto model = checkpoint::Checkpoint::open(command.model.path);
    const auto words = load_tokenizer(model);
    auto options = command.model.decoder;
    const int most = options.context_tokens > 0 ? options.context_tokens : model.config().max_position_embeddings;
    const auto prompts = read_prompts(command, *words, most);
    options.context_tokens = context_for(prompts, command.generate.max_tokens, most);
    options.sequences = std::min(command.parallel, static_cast<int>(prompts.size()));
    const auto decoder = load_decoder(model, options, session);
    runtime::Engine engine(*decoder, session.pool(), options.sequences);
    auto generate = command.generate;
    generate.sampling.seed = session.options().seed;
    if (!command.ignore_eos) generate.stop_tokens = model.config().eos_token_ids;
    for (const auto& prompt : prompts) {
        engine.submit({.prompt = prompt.tokens, .options = generate});
        ++generate.sampling.seed;
    }
    OrderedOutput output(prompts, *words, session.options().json);
    const auto start = Clock::now();
    const std::int64_t finished = run(engine, output, std::ssize(prompts), session);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    session.note(throughput_text(engine.stats(), finished, seconds));
    core::throw_if_stopped(session.stop());
}

}  // namespace mha2mla::cli
