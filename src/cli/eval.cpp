#include <fmt/format.h>
#include <memory>

#include "cli/eval_command.h"
#include "cli/kv_cache_report.h"
#include "cli/workshop.h"
#include "core/error.h"
#include "data/windows.h"
#include "eval/native_scorer.h"

namespace mha2mla::cli {
namespace {

void check_window(const EvalCommand& command, const checkpoint::ModelConfig& config) {
    if (command.window <= config.max_position_embeddings) return;
    throw core::Error({.what = "the window is longer than the model's context",
                       .expected = fmt::format("at most {}", config.max_position_embeddings),
                       .got = fmt::to_string(command.window),
                       .where = "--window"});
}

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
    const auto format = cache::parse_cache_format(command.emulated_cache, option);
    if (!format.content.by_channel && !format.keys.by_channel && !format.rotary.by_channel) return format;
    throw core::Error({.what = "the workshop emulates groups within a token's row only",
                       .got = command.emulated_cache,
                       .where = option,
                       .remedy = "pass --kv-cache to the native engine"});
}

eval::PerplexityResult score(const EvalCommand& command, const checkpoint::Checkpoint& model,
                             const data::TokenWindows& windows, Session& session) {
    if (command.engine == "workshop") {
        const auto scorer = module_scorer(model, {.dtype = module_dtype(command),
                                                  .device = command.device,
                                                  .threads = session.options().threads,
                                                  .cache = cache_format(command)});
        return eval::perplexity(windows, command.perplexity, scorer, session.progress(), session.stop());
    }
    auto options = command.model.decoder;
    if (options.context_tokens == 0) options.context_tokens = command.window;
    options.as_decoded = true;
    const auto decoder = load_decoder(model, options, session);
    return eval::perplexity(windows, command.perplexity, eval::native_scorer(*decoder), session.progress(),
                            session.stop());
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

void evaluate(const EvalCommand& command, Session& session) {
    const auto format = cache_format(command);
    const auto model = checkpoint::Checkpoint::open(command.model.path);
    if (!command.emulated_cache.empty()) cache::check_applies(format, model.config().is_mla(), "--emulate-cache");
    const auto text = data::read_text_file(command.text);
    check_window(command, model.config());
    const data::TokenWindows windows(load_tokenizer(model)->encode(text, false), command.window);
    const auto result = score(command, model, windows, session);
    const auto kv_cache = kv_cache_report(model.config(), format);
    session.print({{"task", command.task},
                   {"perplexity", result.perplexity},
                   {"tokens", result.tokens},
                   {"seconds", result.seconds},
                   {"window", command.window},
                   {"window_nll", result.window_nll},
                   {"kv_cache", kv_cache}},
                  fmt::format("perplexity {:.4g} over {} tokens in {} windows of {} ({}); {} cache, {} bytes a token\n",
                              result.perplexity, result.tokens, result.window_nll.size(), command.window,
                              core::format_duration(result.seconds), cache::name_of(format),
                              kv_cache["bytes_per_token"].get<std::size_t>()));
}

}  // namespace

void add_eval(CLI::App& program, Session& session) {
    auto command = std::make_shared<EvalCommand>();
    CLI::App* verb =
        add_verb(program, session, "eval", "Measure how well a model predicts a text",
                 "  mha2mla eval MODEL --task perplexity --text wiki.txt --window 1024 --first 8 --windows 8\n"
                 "  mha2mla eval MODEL --text wiki.txt --engine workshop --emulate-cache int4 --json");
    add_model_options(*verb, command->model);
    verb->add_option("--task", command->task, "perplexity, longbench, kv-retrieval or needle")
        ->check(CLI::IsMember({"perplexity", "longbench", "kv-retrieval", "needle"}))
        ->capture_default_str();
    verb->add_option("--text", command->text, "Text file: of perplexity, or needle's haystack");
    add_answer_options(*verb, *command);
    verb->add_option("--window", command->window, "Tokens of a window")
        ->check(CLI::Range(2, 1 << 20))
        ->capture_default_str();
    verb->add_option("--first", command->perplexity.first, "Index of the first window")
        ->check(CLI::Range(0, 1 << 30))
        ->capture_default_str();
    verb->add_option("--windows", command->perplexity.windows, "Number of windows; 0 = all that follow")
        ->check(CLI::Range(0, 1 << 30))
        ->capture_default_str();
    verb->add_option("--engine", command->engine, "native, or workshop (the LibTorch module)")
        ->check(CLI::IsMember({"native", "workshop"}))
        ->capture_default_str();
    verb->add_option("--device", command->device, "Device of the workshop engine, as LibTorch spells it")
        ->capture_default_str();
    verb->add_option(
            "--emulate-cache", command->emulated_cache,
            "Workshop engine: attend to what such a cache gives back: bf16, int8, int4 or int2 in groups of 32 "
            "(int4-g64: of 64); rotary keys of a converted model in int8, its sinks exact")
        ->type_name("FORMAT");
    verb->callback([command, verb, &session] {
        check_engine(*verb, *command);
        check_answer_options(*verb, *command);
        if (command->task == "longbench") return eval_longbench(*command, session);
        if (command->task != "perplexity") return eval_retrieval(*command, session);
        if (command->text.empty()) throw core::Error({.what = "perplexity needs a text", .where = "--text"});
        evaluate(*command, session);
    });
}

}  // namespace mha2mla::cli
