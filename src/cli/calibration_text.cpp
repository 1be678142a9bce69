#include "cli/calibration_text.h"

#include <fmt/format.h>

#include "cli/model_options.h"
#include "core/error.h"
#include "data/windows.h"
#include "runtime/generate.h"

namespace mha2mla::cli {
namespace {

CalibrationText from_file(const checkpoint::Checkpoint& model, const CalibrationOptions& options) {
    const auto ids = load_tokenizer(model)->encode(data::read_text_file(options.file), false);
    const data::TokenWindows text(ids, options.window);
    if (text.count() == 0) {
        throw core::Error({.what = "the calibration text is too short",
                           .expected = fmt::format("at least {} tokens", options.window),
                           .got = fmt::to_string(ids.size()),
                           .where = options.file});
    }
    CalibrationText result{.windows = {}, .origin = options.file};
    for (int index = 0; index < std::min(options.windows, text.count()); ++index) {
        result.windows.emplace_back(text[index].begin(), text[index].end());
    }
    return result;
}

/// The token that texts start with: BOS, else the end-of-text token that separates documents.
int first_token(const checkpoint::ModelConfig& config) {
    if (config.bos_token_id) return *config.bos_token_id;
    return config.eos_token_ids.empty() ? 0 : config.eos_token_ids.front();
}

CalibrationText sampled(const checkpoint::Checkpoint& model, const CalibrationOptions& options, Session& session) {
    const auto decoder = load_decoder(model, {.context_tokens = options.window}, session);
    const std::uint64_t seed = session.options().seed;
    CalibrationText result{.windows = {}, .origin = fmt::format("sampled from the source model, seed {}", seed)};
    session.progress().begin("sampling calibration text", static_cast<std::int64_t>(options.windows) * options.window);
    for (int index = 0; index < options.windows; ++index) {
        std::vector<int> tokens{first_token(model.config())};
        runtime::GenerateOptions generate{
            .sampling = {.temperature = 1, .seed = seed + static_cast<std::uint64_t>(index)},
            .max_tokens = options.window - 1,
            .stop_tokens = {}};
        auto sequence = decoder->new_sequence();
        const std::vector<int> prompt = tokens;
        runtime::generate(
            *decoder, sequence, prompt, generate,
            [&](int token) {
                tokens.push_back(token);
                session.progress().update(static_cast<std::int64_t>(index) * options.window + std::ssize(tokens), "");
            },
            session.stop());
        core::throw_if_stopped(session.stop());
        result.windows.push_back(std::move(tokens));
    }
    session.progress().end();
    return result;
}

}  // namespace

CalibrationText calibration_text(const checkpoint::Checkpoint& model, CalibrationOptions options, Session& session) {
    options.window = std::min(options.window, model.config().max_position_embeddings);
    return options.file.empty() ? sampled(model, options, session) : from_file(model, options);
}

}  // namespace mha2mla::cli
