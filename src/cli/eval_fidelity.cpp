#include <fmt/format.h>

#include "cli/eval_command.h"
#include "cli/kv_cache_report.h"
#include "eval/fidelity.h"

namespace mha2mla::cli {
namespace {

/// The source runs with the same weights, its cache in plain numbers: what a cache format loses is the model's loss.
runtime::DecoderOptions source_options(runtime::DecoderOptions options) {
    options.kv_cache = cache::plain_format(options.kv_cache.content.dtype);
    options.packed_weights.clear();
    return options;
}

}  // namespace

void eval_fidelity(const EvalCommand& command, Session& session) {
    require_option(command.against, "--against", command);
    const auto model = checkpoint::Checkpoint::open(command.model.path);
    const auto source = checkpoint::Checkpoint::open(command.against);
    const auto windows = text_windows(command, model);
    const auto decoder = load_for_windows(model, command.model.decoder, command, session);
    const auto source_decoder = load_for_windows(source, source_options(command.model.decoder), command, session);
    const auto result = eval::fidelity(windows, {command.perplexity.first, command.perplexity.windows},
                                       {*source_decoder, *decoder, session.pool()}, session.progress(), session.stop());
    const auto kv_cache = kv_cache_report(model.config(), command.model.decoder.kv_cache);
    session.print(
        {{"task", command.task},
         {"tokens", result.tokens},
         {"mean_kl", result.mean_kl},
         {"kl_99", result.kl_99},
         {"same_top", result.same_top},
         {"perplexity", result.perplexity},
         {"source_perplexity", result.source_perplexity},
         {"seconds", result.seconds},
         {"window", command.window},
         {"first", command.perplexity.first},
         {"run", run_report(command)},
         {"kv_cache", kv_cache}},
        fmt::format("KL to the source: mean {:.4g}, 99th percentile {:.4g}; the same likeliest token {:.2f} %; "
                    "perplexity {:.4g}, source {:.4g}; {} tokens ({}); {}\n",
                    result.mean_kl, result.kl_99, 100 * result.same_top, result.perplexity, result.source_perplexity,
                    result.tokens, core::format_duration(result.seconds), cache_text(kv_cache)));
}

}  // namespace mha2mla::cli
