#include <fmt/format.h>
#include <memory>
#include <optional>
#include <utility>

#include "cli/eval_command.h"
#include "cli/kv_cache_report.h"
#include "cli/workshop.h"
#include "core/error.h"
#include "eval/native_scorer.h"

namespace mha2mla::cli {
namespace {

/// The workshop's module computes in floats.
core::DType module_dtype(const EvalCommand& command) {
    const auto format = command.model.decoder.weights;
    if (!kernels::is_grouped(format))
        return format == kernels::WeightFormat::f32 ? core::DType::f32 : core::DType::bf16;
    throw core::Error({.what = "the workshop engine has no quantized weights",
                       .expected = "bf16 or f32",
                       .got = std::string(kernels::name_of(format)),
                       .where = "--weights",
                       .remedy = "pass --engine native"});
}

/// What the engine keeps of a token: the native one's cache, the emulated one, or the module's own type.
cache::CacheFormat cache_format(const EvalCommand& command) {
    constexpr const char* option = "--emulate-cache";
    if (command.engine == "native") {
        if (command.emulated_cache.empty()) return command.model.decoder.kv_cache;
        throw core::Error(
            {.what = "the native engine emulates no cache", .where = option, .remedy = "pass --engine workshop, too"});
    }
    if (command.emulated_cache.empty()) return cache::plain_format(module_dtype(command));
    return cache::parse_cache_format(command.emulated_cache, option);
}

bool as_llama_cpp(const EvalCommand& command) { return command.convention == "llama.cpp"; }

/// Which tokens of a window count: llama-perplexity takes those behind the middle one.
eval::PerplexityOptions perplexity_options(const EvalCommand& command) {
    auto options = command.perplexity;
    options.scored = as_llama_cpp(command) ? command.window - command.window / 2 - 1 : command.stride;
    if (options.scored == command.window) options.scored = 0;
    return options;
}

/// llama-perplexity begins each window with BOS where the model's texts begin with one.
eval::WindowScorer with_bos(eval::WindowScorer score, int bos) {
    return [score = std::move(score), bos](std::span<const int> tokens, std::size_t first) {
        std::vector<int> window(tokens.begin(), tokens.end());
        window.front() = bos;
        return score(window, first);
    };
}

/// The token that texts of this model begin with by themselves.
std::optional<int> added_bos(const checkpoint::Checkpoint& model) {
    const auto added = load_tokenizer(model)->encode("", true);
    return added.empty() ? std::nullopt : std::optional(added.front());
}

eval::WindowScorer module_scorer(const EvalCommand& command, const checkpoint::Checkpoint& model, Session& session) {
    return cli::module_scorer(model, {.dtype = module_dtype(command),
                                      .device = command.device,
                                      .threads = session.options().threads,
                                      .cache = cache_format(command)});
}

eval::PerplexityResult score(const EvalCommand& command, const checkpoint::Checkpoint& model,
                             const data::TokenWindows& windows, Session& session) {
    std::unique_ptr<runtime::Decoder> decoder;  // the scorer's
    if (command.engine == "native") decoder = load_for_windows(model, command.model.decoder, command, session);
    auto scorer = decoder ? eval::native_scorer(*decoder, session.pool()) : module_scorer(command, model, session);
    const auto bos = as_llama_cpp(command) ? added_bos(model) : std::nullopt;
    if (bos) scorer = with_bos(std::move(scorer), *bos);
    return eval::perplexity(windows, perplexity_options(command), scorer, session.progress(), session.stop());
}

/// What one engine reads is an error with the other: it would measure something else than was asked for.
void check_engine(const CLI::App& verb, const EvalCommand& command) {
    const bool native = command.engine == "native";
    const std::vector<const char*> others =
        native ? std::vector{"--device"}
               : std::vector{"--kv-cache", "--attention", "--context", "--packed", "--output-weights"};
    for (const char* option : others) {
        if (verb.get_option(option)->count() == 0) continue;
        throw core::Error({.what = fmt::format("the {} engine has no such option", command.engine),
                           .where = option,
                           .remedy = native ? "pass --engine workshop, too" : "pass --engine native"});
    }
}

std::string summary(const eval::PerplexityResult& result, const EvalCommand& command,
                    const core::OrderedJson& kv_cache) {
    return fmt::format("perplexity {:.4g} +/- {:.2g} over {} tokens in {} windows of {} ({}); {}\n", result.perplexity,
                       result.standard_error, result.tokens, result.window_nll.size(), command.window,
                       core::format_duration(result.seconds), cache_text(kv_cache));
}

/// What the user left open follows from the convention.
EvalCommand completed(const CLI::App& verb, EvalCommand command) {
    if (!as_llama_cpp(command)) return command;
    if (verb.get_option("--window")->count() == 0) command.window = 512;
    if (command.stride == 0) return command;
    throw core::Error({.what = "windows of llama.cpp's convention do not overlap", .where = "--stride"});
}

void evaluate(const EvalCommand& command, Session& session) {
    const auto format = cache_format(command);
    const auto model = checkpoint::Checkpoint::open(command.model.path);
    if (!command.emulated_cache.empty()) cache::check_applies(format, model.config().is_mla(), "--emulate-cache");
    const auto result = score(command, model, text_windows(command, model), session);
    const auto kv_cache = kv_cache_report(model.config(), format);
    session.print({{"task", command.task},
                   {"perplexity", result.perplexity},
                   {"standard_error", result.standard_error},
                   {"tokens", result.tokens},
                   {"seconds", result.seconds},
                   {"window", command.window},
                   {"first", command.perplexity.first},
                   {"stride", command.stride},
                   {"convention", command.convention},
                   {"window_nll", result.window_nll},
                   {"engine", command.engine},
                   {"run", run_report(command)},
                   {"kv_cache", kv_cache}},
                  summary(result, command, kv_cache));
}

}  // namespace

data::TokenWindows text_windows(const EvalCommand& command, const checkpoint::Checkpoint& model) {
    require_option(command.text, "--text", command);
    const std::string text = data::read_text_file(command.text);
    const int longest = model.config().max_position_embeddings;
    if (command.window > longest) {
        throw core::Error({.what = "the window is longer than the model's context",
                           .expected = fmt::format("at most {}", longest),
                           .got = fmt::to_string(command.window),
                           .where = "--window"});
    }
    auto tokens = load_tokenizer(model)->encode(text, as_llama_cpp(command));
    if (std::ssize(tokens) < command.window) {
        throw core::Error({.what = "the text has no whole window",
                           .expected = fmt::format("at least {} tokens (--window)", command.window),
                           .got = fmt::to_string(tokens.size()),
                           .where = command.text});
    }
    return {std::move(tokens), command.window, command.stride == 0 ? command.window : command.stride};
}

std::unique_ptr<runtime::Decoder> load_for_windows(const checkpoint::Checkpoint& model, runtime::DecoderOptions options,
                                                   const EvalCommand& command, Session& session) {
    if (options.context_tokens == 0) options.context_tokens = command.window;
    return load_decoder(model, for_scoring(options), session);
}

void eval_perplexity(const CLI::App& verb, const EvalCommand& command, Session& session) {
    check_engine(verb, command);
    evaluate(completed(verb, command), session);
}

}  // namespace mha2mla::cli
