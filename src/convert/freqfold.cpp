#include "convert/freqfold.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <string>
#include <utility>

#include "convert/transmla_method.h"
#include "core/error.h"
#include "model/decoder_layer.h"

namespace mha2mla::convert {
namespace {

using torch::Tensor;

model::ModelOptions model_options(const FreqfoldTrial& trial) {
    model::ModelOptions options;
    options.device = trial.device;
    return options;
}

/// One value of --freqfold and how far its converted model has come.
struct Candidate {
    Plan plan;
    std::vector<Tensor> hidden;  // [1, tokens, E] of each window
    double perplexity = 0;
};

std::vector<Candidate> make_candidates(const FreqfoldTrial& trial) {
    const auto& config = trial.source.config();
    const model::Weights weights(trial.source, model_options(trial));
    model::Embedding embed(weights.under("model.embed_tokens"), config.vocab_size, config.hidden_size);
    std::vector<Tensor> hidden;
    for (const auto& window : trial.windows) {
        hidden.push_back(embed(torch::tensor(window, torch::kInt64).to(trial.device).unsqueeze(0)));
    }
    std::vector<Candidate> candidates;
    for (const int fold : freqfolds_to_try(trial.plan)) {
        candidates.push_back({trial.plan, hidden});
        candidates.back().plan.options.transmla.freqfold = fold;
    }
    return candidates;
}

/// Converts one layer and steps over it.
void step(Candidate& candidate, const FreqfoldTrial& trial, const SourceAttention& source, int layer,
          const calibrate::AttentionMoments& moments) {
    const auto converted = convert_transmla({source, candidate.plan, layer, &moments});
    const auto prefix = checkpoint::layer_tensor(layer, "");
    const auto read = [&](const std::string& name, const checkpoint::Shape& shape) {
        const auto found = converted.tensors.find(name.substr(prefix.size()));
        return found == converted.tensors.end() ? model::read_tensor(trial.source, name, shape)
                                                : found->second.to(torch::kFloat32);
    };
    const auto weights = model::Weights(read, model_options(trial)).under("model.layers." + std::to_string(layer));
    model::DecoderLayer module(weights, candidate.plan.target, layer);
    for (auto& hidden : candidate.hidden) hidden = module(hidden);
}

/// Mean -log p of a window's tokens after the first. Logits of some positions at a time: whole windows are large.
double mean_loss(const Tensor& normed_TE, const Tensor& output_VE, const std::vector<int>& window) {
    constexpr std::int64_t chunk = 128;
    const std::int64_t scored = std::ssize(window) - 1;
    const auto targets = torch::tensor(window, torch::kInt64).to(normed_TE.device()).slice(0, 1);
    double sum = 0;
    for (std::int64_t begin = 0; begin < scored; begin += chunk) {
        const std::int64_t end = std::min(begin + chunk, scored);
        const auto logits = torch::linear(normed_TE.slice(0, begin, end), output_VE);
        sum += torch::cross_entropy_loss(logits, targets.slice(0, begin, end), {}, at::Reduction::Sum).item<double>();
    }
    return sum / static_cast<double>(scored);
}

void score(std::vector<Candidate>& candidates, const FreqfoldTrial& trial) {
    const auto& config = trial.source.config();
    const model::Weights weights(trial.source, model_options(trial));
    model::RmsNorm norm(weights.under("model.norm"), config.hidden_size, config.rms_norm_eps);
    const auto output = weights.load(config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight",
                                     {config.vocab_size, config.hidden_size});
    for (auto& candidate : candidates) {
        double sum = 0;
        for (std::size_t w = 0; w < trial.windows.size(); ++w) {
            sum += mean_loss(norm(candidate.hidden[w])[0], output, trial.windows[w]);
        }
        candidate.perplexity = std::exp(sum / static_cast<double>(trial.windows.size()));
    }
}

std::string in_words(const std::vector<Candidate>& candidates) {
    std::string text = "held-out perplexity";
    for (const auto& candidate : candidates) {
        text += fmt::format(" {}: {:.1f}", *candidate.plan.options.transmla.freqfold, candidate.perplexity);
    }
    return text;
}

}  // namespace

bool chooses_freqfold(const ConversionOptions& options) {
    return options.method == "transmla" && !options.transmla.freqfold;
}

std::vector<std::vector<int>> hold_out(std::vector<std::vector<int>>& windows) {
    const auto count = std::max<std::ptrdiff_t>(1, std::ssize(windows) / 8);
    if (count >= std::ssize(windows)) {
        throw core::Error({.what = "there is too little calibration text to choose --freqfold by",
                           .expected = "at least 2 windows",
                           .got = fmt::to_string(windows.size()),
                           .where = "--calibration",
                           .remedy = "pass a longer text, shorter windows, or --freqfold N"});
    }
    std::vector<std::vector<int>> held_out(windows.end() - count, windows.end());
    windows.erase(windows.end() - count, windows.end());
    return held_out;
}

int best_freqfold(const FreqfoldTrial& trial, core::Progress& progress, const std::stop_token& stop) {
    const torch::NoGradGuard no_gradients;
    auto candidates = make_candidates(trial);
    const int layers = trial.source.config().num_hidden_layers;
    progress.begin("choosing freqfold", layers + 1);
    for (int layer = 0; layer < layers; ++layer) {
        const auto source = load_attention(trial.source, layer, trial.device);
        const auto moments = trial.moments(layer);
        for (auto& candidate : candidates) {
            core::throw_if_stopped(stop);
            step(candidate, trial, source, layer, moments);
        }
        progress.update(layer + 1, "");
    }
    score(candidates, trial);
    progress.update(layers + 1, in_words(candidates));
    progress.end();
    const auto best = std::min_element(candidates.begin(), candidates.end(),
                                       [](const auto& a, const auto& b) { return a.perplexity < b.perplexity; });
    return *best->plan.options.transmla.freqfold;
}

}  // namespace mha2mla::convert
