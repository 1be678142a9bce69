#include "runtime/generate.h"

#include <fmt/format.h>
#include <iostream>
#include <memory>
#include <utility>

#include "cli/generate_prompts.h"
#include "cli/model_options.h"
#include "cli/session.h"
#include "core/error.h"
#include "data/windows.h"

namespace mha2mla::cli {
namespace {

struct GenerateCommand {
    PromptsCommand all;  // the options that one prompt has, too
    std::string prompt;
    std::string file;
    bool stats = false;
};

double per_second(int tokens, double seconds) { return seconds > 0 ? tokens / seconds : 0; }

core::OrderedJson stats_json(const runtime::GenerateStats& stats, const runtime::KvBytes& kv) {
    return {{"finish_reason", name_of(stats.finish)},
            {"prompt_tokens", stats.prompt_tokens},
            {"generated_tokens", stats.generated_tokens},
            {"prefill_tokens_per_second", per_second(stats.prompt_tokens, stats.prefill_seconds)},
            {"decode_tokens_per_second", per_second(stats.decode_steps, stats.decode_seconds)},
            {"kv_bytes_allocated", kv.allocated},
            {"kv_bytes_used", kv.used}};
}

std::string stats_text(const core::OrderedJson& stats) {
    return fmt::format(
        "\n{} prompt tokens at {:.1f}/s, {} generated at {:.1f}/s, KV cache {:.1f} KiB allocated, {:.1f} KiB used ({})",
        stats["prompt_tokens"].get<int>(), stats["prefill_tokens_per_second"].get<double>(),
        stats["generated_tokens"].get<int>(), stats["decode_tokens_per_second"].get<double>(),
        stats["kv_bytes_allocated"].get<double>() / 1024, stats["kv_bytes_used"].get<double>() / 1024,
        stats["finish_reason"].get<std::string>());
}

std::vector<int> prompt_ids(const std::string& prompt, const tokenizer::Tokenizer& words) {
    auto ids = words.encode(prompt, true);
    if (ids.empty()) throw core::Error({.what = "the prompt is empty", .remedy = "give some text with -p or --file"});
    return ids;
}

/// Streams the prompt and the text as it is decoded; with --json it only collects the text. The prompt waits for the
/// first token, so that a refused one prints nothing.
class Output {
public:
    Output(const tokenizer::Tokenizer& words, std::string prompt, bool stream)
        : detokenizer_(words), prompt_(std::move(prompt)), stream_(stream) {}
    void push(int token) {
        tokens_.push_back(token);
        add(detokenizer_.push(token));
    }
    void finish() { add(detokenizer_.finish()); }
    const std::string& text() const { return text_; }
    const std::vector<int>& tokens() const { return tokens_; }

private:
    void add(const std::string& piece) {
        text_ += piece;
        if (stream_) write_out(std::exchange(prompt_, "") + piece);
    }

    tokenizer::Detokenizer detokenizer_;
    std::string prompt_;
    bool stream_;
    std::string text_;
    std::vector<int> tokens_;
};

void generate(GenerateCommand& command, Session& session) {
    if (!command.file.empty()) command.prompt = data::read_text_file(command.file);
    const auto model = checkpoint::Checkpoint::open(command.all.model.path);
    const auto words = load_tokenizer(model);
    const auto decoder = load_decoder(model, command.all.model.decoder, session);
    const auto prompt = prompt_ids(command.prompt, *words);
    auto& options = command.all.generate;
    options.sampling.seed = session.options().seed;
    if (!command.all.ignore_eos) options.stop_tokens = model.config().eos_token_ids;

    const bool stream = !session.options().json;
    Output output(*words, command.prompt, stream);
    auto sequence = decoder->new_sequence();
    const auto stats = runtime::generate(
        *decoder, sequence, prompt, options, [&](int token) { output.push(token); }, session.stop());
    output.finish();
    auto object = stats_json(stats, sequence.kv_bytes());
    if (command.stats && stream) session.note(stats_text(object));
    object["prompt"] = command.prompt;
    object["text"] = output.text();
    object["tokens"] = output.tokens();
    session.print(object, "\n");
}

void add_sampling_options(CLI::App& verb, runtime::SamplingOptions& sampling) {
    verb.add_option("--temperature", sampling.temperature, "0 = greedy")->capture_default_str();
    verb.add_option("--top-k", sampling.top_k, "Keep the k likeliest tokens; 0 = all")->capture_default_str();
    verb.add_option("--top-p", sampling.top_p, "Keep the likeliest tokens of this total probability")
        ->capture_default_str();
    verb.add_option("--min-p", sampling.min_p, "Drop tokens below this share of the likeliest")->capture_default_str();
    verb.add_option("--repetition-penalty", sampling.repetition_penalty, "1 = none")->capture_default_str();
    verb.add_option("--repetition-window", sampling.repetition_window, "Latest tokens that the penalty looks at")
        ->capture_default_str();
}

}  // namespace

void add_generate(CLI::App& program, Session& session) {
    auto command = std::make_shared<GenerateCommand>();
    CLI::App* verb =
        add_verb(program, session, "generate", "Continue a text",
                 "  mha2mla generate MODEL -p 'The capital of France is' --stats\n"
                 "  mha2mla generate MODEL --file prompt.txt -n 200 --temperature 0.8 --top-p 0.95 --seed 7\n"
                 "  mha2mla generate MODEL --prompts prompts.jsonl --parallel 8 -n 64 --json");
    auto& all = command->all;
    add_model_options(*verb, all.model);
    auto* input = verb->add_option_group("prompt")->require_option(1);
    input->add_option("-p,--prompt", command->prompt, "Text to continue");
    input->add_option("--file", command->file, "File with the text to continue");
    auto* prompts = input->add_option("--prompts", all.file,
                                      "File of many texts to continue, one a line, or JSON lines with a field "
                                      "\"prompt\"; - = standard input");
    verb->add_option("--parallel", all.parallel, "Of --prompts: so many at a time")
        ->needs(prompts)
        ->check(CLI::Range(1, runtime::Decoder::max_batch_tokens))
        ->capture_default_str();
    verb->add_option("-n,--max-tokens", all.generate.max_tokens, "Tokens to generate at most")
        ->check(CLI::Range(0, 1 << 24))
        ->capture_default_str();
    add_sampling_options(*verb, all.generate.sampling);
    verb->add_flag("--ignore-eos", all.ignore_eos, "Go on after the end-of-text token");
    verb->add_flag("--stats", command->stats, "Print speed and cache size at the end");
    verb->callback([command, &session] {
        if (command->all.file.empty()) return generate(*command, session);
        generate_prompts(command->all, session);
    });
}

}  // namespace mha2mla::cli
