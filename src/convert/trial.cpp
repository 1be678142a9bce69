#include "convert/trial.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <limits>
#include <string>

#include "calibrate/layer_walk.h"
#include "convert/method.h"
#include "core/error.h"
#include "model/layers.h"

namespace mha2mla::convert {
namespace {

using torch::Tensor;

model::ModelOptions model_options(const Evidence& evidence) {
    model::ModelOptions options;
    options.device = evidence.device;
    return options;
}

/// A plan and how far its converted model has come.
struct Candidate {
    Plan plan;
    std::vector<Tensor> hidden;  // [1, tokens, E] of each window
};

std::vector<Candidate> make_candidates(const std::vector<Plan>& plans, const Evidence& evidence) {
    std::vector<Tensor> hidden;
    for (const auto& window : evidence.held_out) {
        hidden.push_back(calibrate::embed_tokens(evidence.source, window).to(evidence.device));
    }
    std::vector<Candidate> candidates;
    for (const auto& plan : plans) candidates.push_back({plan, hidden});
    return candidates;
}

/// Converts one layer and steps over it.
void step(Candidate& candidate, const Evidence& evidence, const LayerTask& task) {
    const auto converted = find_method(candidate.plan.options.method).convert(task);
    if (!converted.rope_pairs.empty()) set_rope_pairs(candidate.plan, task.layer, converted.rope_pairs);
    auto module =
        make_converted_layer(evidence.source, candidate.plan.target, task.layer, converted, model_options(evidence));
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

std::vector<double> perplexities(const std::vector<Candidate>& candidates, const Evidence& evidence) {
    const auto& config = evidence.source.config();
    const model::Weights weights(evidence.source, model_options(evidence));
    model::RmsNorm norm(weights.under("model.norm"), config.hidden_size, config.rms_norm_eps);
    const auto output = weights.load(config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight",
                                     {config.vocab_size, config.hidden_size});
    std::vector<double> result;
    for (const auto& candidate : candidates) {
        double sum = 0;
        for (std::size_t w = 0; w < evidence.held_out.size(); ++w) {
            sum += mean_loss(norm(candidate.hidden[w])[0], output, evidence.held_out[w]);
        }
        const double perplexity = std::exp(sum / static_cast<double>(evidence.held_out.size()));
        result.push_back(std::isfinite(perplexity) ? perplexity : std::numeric_limits<double>::infinity());
    }
    return result;
}

}  // namespace

model::DecoderLayer make_converted_layer(const checkpoint::Checkpoint& source, const checkpoint::ModelConfig& target,
                                         int layer, const ConvertedAttention& converted,
                                         const model::ModelOptions& options) {
    const auto prefix = checkpoint::layer_tensor(layer, "");
    const auto read = [&](const std::string& name, const checkpoint::Shape& shape) {
        const auto found = converted.tensors.find(name.substr(prefix.size()));
        return found == converted.tensors.end() ? model::read_tensor(source, name, shape)
                                                : found->second.to(torch::kCPU, torch::kFloat32);
    };
    const auto weights = model::Weights(read, options).under("model.layers." + std::to_string(layer));
    return model::DecoderLayer(weights, target, layer);
}

std::vector<double> try_plans(const std::vector<Plan>& plans, const Evidence& evidence, core::Progress& progress,
                              const std::stop_token& stop) {
    const torch::NoGradGuard no_gradients;
    auto candidates = make_candidates(plans, evidence);
    const int layers = evidence.source.config().num_hidden_layers;
    progress.begin("trying plans on held-out text", layers + 1);
    for (int layer = 0; layer < layers; ++layer) {
        const auto source = load_attention(evidence.source, layer, evidence.device);
        const auto moments = evidence.moments(layer);
        for (auto& candidate : candidates) {
            core::throw_if_stopped(stop);
            step(candidate, evidence, {source, candidate.plan, layer, &moments});
        }
        progress.update(layer + 1, "");
    }
    const auto result = perplexities(candidates, evidence);
    progress.update(layers + 1, fmt::format("perplexities {:.1f}", fmt::join(result, ", ")));
    progress.end();
    return result;
}

Plan best_plan(const std::vector<Plan>& plans, const Evidence& evidence, core::Progress& progress,
               const std::stop_token& stop) {
    if (plans.size() == 1) return plans.front();
    if (evidence.held_out.empty()) {
        throw core::Error({.what = "a choice is left to the calibration, and no window was held out to judge it by",
                           .expected = "2 windows or more, or the choice made with --no-by-layer or --freqfold N",
                           .got = "1 window",
                           .where = "--calibration"});
    }
    const auto result = try_plans(plans, evidence, progress, stop);
    return plans[static_cast<std::size_t>(std::min_element(result.begin(), result.end()) - result.begin())];
}

}  // namespace mha2mla::convert
