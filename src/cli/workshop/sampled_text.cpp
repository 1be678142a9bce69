#include "cli/workshop/sampled_text.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "checkpoint/tensors.h"
#include "cli/kv_cache_report.h"
#include "cli/model_options.h"
#include "cli/workshop/openings.h"
#include "core/error.h"
#include "core/memory.h"
#include "runtime/engine.h"

namespace mha2mla::cli {
namespace {

/// The token that texts start with: BOS, else the end-of-text token that separates documents.
int first_token(const checkpoint::ModelConfig& config) {
    if (config.bos_token_id) return *config.bos_token_id;
    return config.eos_token_ids.empty() ? 0 : config.eos_token_ids.front();
}

/// The first token and an opening, no more than half of a window.
std::vector<int> prompt_of(std::size_t window, const tokenizer::Tokenizer& words, const checkpoint::ModelConfig& config,
                           const SampledTextOptions& options) {
    std::vector<int> tokens{first_token(config)};
    const auto opening = words.encode(std::string(openings[window % openings.size()]), false);
    tokens.insert(tokens.end(), opening.begin(), opening.end());
    tokens.resize(std::min(tokens.size(), std::max<std::size_t>(1, static_cast<std::size_t>(options.window) / 2)));
    return tokens;
}

/// Every process gets the windows of all: token ids are exact in fp64.
void share_windows(std::vector<std::vector<int>>& windows, const SampledTextOptions& options,
                   const parallel::Communicator& processes) {
    const auto width = static_cast<std::size_t>(options.window);
    std::vector<double> ids(windows.size() * width);
    for (std::size_t w = 0; w < windows.size(); ++w) {
        std::copy(windows[w].begin(), windows[w].end(), ids.begin() + static_cast<std::ptrdiff_t>(w * width));
    }
    processes.sum(ids);
    for (std::size_t w = 0; w < windows.size(); ++w) {
        const auto first = ids.begin() + static_cast<std::ptrdiff_t>(w * width);
        windows[w].assign(first, first + options.window);
    }
}

/// How many windows the memory takes in at once.
int windows_at_once(const checkpoint::ModelConfig& config, const SampledTextOptions& options,
                    std::size_t memory_bytes) {
    const auto report = kv_cache_report(config, cache::plain_format(core::DType::bf16));
    const auto window_bytes = report["bytes_per_token"].get<std::size_t>() * static_cast<std::size_t>(options.window);
    constexpr std::size_t most = runtime::Decoder::max_batch_tokens;
    return static_cast<int>(std::clamp(memory_bytes / window_bytes, std::size_t{1},
                                       std::min(most, static_cast<std::size_t>(options.windows))));
}

/// The whole model writes the text, and so lies in memory: the one step of a conversion that needs more than a layer.
void check_fits_in_memory(const checkpoint::Checkpoint& model) {
    std::int64_t weights = 0;
    for (const auto& spec : checkpoint::expected_tensors(model.config()))
        weights += checkpoint::element_count(spec.shape);
    const double needed = 2.0 * static_cast<double>(weights);  // bf16
    const auto there = static_cast<double>(core::physical_memory_bytes());
    constexpr double share = 0.8;
    if (needed <= share * there) return;
    throw core::Error({.what = "the model is too large to write text on this machine",
                       .expected = fmt::format("at most {:.0f} GB of weights", share * there / 1e9),
                       .got = fmt::format("{:.0f} GB", needed / 1e9),
                       .where = model.path().string(),
                       .remedy = "pass texts of your own (--calibration FILE, finetune --text FILE)"});
}

void sample(runtime::Engine& engine, Session& session,
            core::FunctionRef<void(const runtime::EngineResult&)> on_finish) {
    while (engine.step(on_finish)) {
        core::throw_if_stopped(session.stop());
        const auto stats = engine.stats();
        session.progress().update(stats.prompt_tokens + stats.reused_tokens + stats.generated_tokens, "");
    }
}

}  // namespace

std::string sampled_origin(const SampledTextOptions& options, std::uint64_t seed) {
    return fmt::format("sampled from the source model, {} openings, temperatures {}, seed {}, {} windows of {} tokens",
                       openings.size(), fmt::join(options.temperatures, ","), seed, options.windows, options.window);
}

data::TextWindows sampled_text(const checkpoint::Checkpoint& model, const SampledTextOptions& options, Session& session,
                               const parallel::Communicator& processes) {
    check_fits_in_memory(model);
    const int at_once = windows_at_once(model.config(), options, options.memory_bytes);
    const auto decoder = load_decoder(model, {.context_tokens = options.window, .sequences = at_once}, session);
    const auto words = load_tokenizer(model);
    const auto windows = static_cast<std::size_t>(options.windows);
    data::TextWindows result{.windows = std::vector<std::vector<int>>(windows),
                             .origin = sampled_origin(options, session.options().seed)};
    session.progress().begin("sampling text", static_cast<std::int64_t>(options.windows) * options.window);
    runtime::Engine engine(*decoder, session.pool(), at_once);
    std::vector<std::size_t> indices;  // by request
    parallel::for_each_share(processes, windows, [&](std::size_t index) {
        auto& window = result.windows[index] = prompt_of(index, *words, model.config(), options);
        const float temperature = options.temperatures[index % options.temperatures.size()];
        engine.submit({.prompt = window,
                       .options = {.sampling = {.temperature = temperature, .seed = session.options().seed + index},
                                   .max_tokens = options.window - static_cast<int>(window.size())}});
        indices.push_back(index);
    });
    sample(engine, session, [&](const runtime::EngineResult& text) {
        auto& window = result.windows[indices[static_cast<std::size_t>(text.id)]];
        window.insert(window.end(), text.generated.begin(), text.generated.end());
    });
    share_windows(result.windows, options, processes);
    session.progress().end();
    return result;
}

}  // namespace mha2mla::cli
