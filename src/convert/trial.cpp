#include "convert/trial.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>

#include "calibrate/layer_walk.h"
#include "convert/method.h"
#include "core/error.h"
#include "model/layers.h"

namespace mha2mla::convert {
namespace {

using calibrate::HiddenStates;
using torch::Tensor;

model::ModelOptions model_options(const Evidence& evidence) {
    model::ModelOptions options;
    options.device = evidence.device;
    return options;
}

HiddenStates embed(const Evidence& evidence, const calibrate::RestOptions& rest) {
    return calibrate::LayerWalk(evidence.source, evidence.held_out, {}, rest).take_hidden();
}

void step_over(model::DecoderLayer layer, HiddenStates& hidden, const Evidence& evidence, const std::stop_token& stop) {
    for (std::size_t window = 0; window < hidden.windows(); ++window) {
        core::throw_if_stopped(stop);
        hidden.replace(window, layer(hidden.get(window).to(evidence.device)));
    }
}

/// A plan and how far its converted model has come.
struct Candidate {
    Plan plan;
    HiddenStates hidden;
};

void step(Candidate& candidate, const Evidence& evidence, const LayerTask& task, const std::stop_token& stop) {
    const auto converted = find_method(candidate.plan.options.method).convert(task);
    if (!converted.rope_pairs.empty()) set_rope_pairs(candidate.plan, task.layer, converted.rope_pairs);
    step_over(
        make_converted_layer(evidence.source, candidate.plan.target, task.layer, converted, model_options(evidence)),
        candidate.hidden, evidence, stop);
}

/// Mean -log p of the windows' tokens after the first of each. Works through the output matrix some rows at a time: it
/// can be larger than a layer.
class Loss {
public:
    Loss(const HiddenStates& hidden, const Evidence& evidence) : evidence_(evidence) {
        const auto& config = evidence.source.config();
        const model::Weights weights(evidence.source, model_options(evidence));
        model::RmsNorm norm(weights.under("model.norm"), config.hidden_size, config.rms_norm_eps);
        for (std::size_t w = 0; w < hidden.windows(); ++w) {
            const auto& window = evidence.held_out[w];
            const auto scored = std::ssize(window) - 1;
            states_.push_back(norm(hidden.get(w).to(evidence.device))[0].slice(0, 0, scored));
            targets_.push_back(torch::tensor(window, torch::kInt64).slice(0, 1).to(evidence.device));
            normalizers_.push_back(torch::full({scored}, -std::numeric_limits<float>::infinity(), evidence.device));
            logits_.push_back(torch::zeros({scored}, evidence.device));
        }
    }

    /// Rows first..first + n of the output matrix.
    void add(const Tensor& rows_nE, std::int64_t first) {
        for (std::size_t w = 0; w < states_.size(); ++w) {
            const auto logits = torch::linear(states_[w], rows_nE);
            normalizers_[w] = torch::logaddexp(normalizers_[w], logits.logsumexp(1));
            const auto here = (targets_[w] >= first).logical_and(targets_[w] < first + rows_nE.size(0));
            const auto column = (targets_[w] - first).clamp(0, rows_nE.size(0) - 1).unsqueeze(1);
            logits_[w] += torch::where(here, logits.gather(1, column).squeeze(1), 0.0);
        }
    }

    double perplexity() const {
        double sum = 0;
        std::int64_t tokens = 0;
        for (std::size_t w = 0; w < states_.size(); ++w) {
            sum += (normalizers_[w] - logits_[w]).sum(torch::kFloat64).item<double>();
            tokens += logits_[w].numel();
        }
        const double perplexity = std::exp(sum / static_cast<double>(std::max<std::int64_t>(tokens, 1)));
        return std::isfinite(perplexity) ? perplexity : std::numeric_limits<double>::infinity();
    }

private:
    const Evidence& evidence_;
    std::vector<Tensor> states_, targets_, normalizers_, logits_;  // of each window
};

void work_through_output(std::vector<Loss>& losses, const Evidence& evidence, const std::stop_token& stop) {
    constexpr std::int64_t rows_at_a_time = 4096;
    const auto& config = evidence.source.config();
    const std::string name = config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    for (std::int64_t first = 0; first < config.vocab_size; first += rows_at_a_time) {
        core::throw_if_stopped(stop);
        const auto count = std::min<std::int64_t>(rows_at_a_time, config.vocab_size - first);
        const auto rows = torch::empty({count, config.hidden_size}, torch::kFloat32);
        evidence.source.read_rows(name, {config.vocab_size, config.hidden_size}, first, count,
                                  {rows.data_ptr<float>(), static_cast<std::size_t>(rows.numel())});
        for (auto& loss : losses) loss.add(rows.to(evidence.device), first);
    }
}

}  // namespace

core::OrderedJson Trial::to_json() const {
    core::OrderedJson json{{"windows", windows}, {"source_perplexity", source}};
    auto& list = json["alternatives"] = core::OrderedJson::array();
    for (const auto& result : alternatives) {
        list.push_back({{"name", result.name}, {"perplexity", result.perplexity}, {"chosen", result.chosen}});
    }
    return json;
}

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

Trial try_alternatives(const std::vector<Alternative>& alternatives, const Evidence& evidence, core::Progress& progress,
                       const std::stop_token& stop) {
    const torch::NoGradGuard no_gradients;
    auto rest = evidence.rest;
    rest.memory_bytes /= alternatives.size() + 1;  // of the source and of each alternative
    auto source_hidden = embed(evidence, rest);
    std::vector<Candidate> candidates;
    for (const auto& alternative : alternatives) candidates.push_back({alternative.plan, embed(evidence, rest)});
    const int layers = evidence.source.config().num_hidden_layers;
    progress.begin("trying plans on held-out text", layers + 1);
    for (int layer = 0; layer < layers; ++layer) {
        step_over(model::load_layer(evidence.source, layer, model_options(evidence)), source_hidden, evidence, stop);
        const auto source = load_attention(evidence.source, layer, evidence.device);
        const auto moments = evidence.moments(layer);
        for (auto& candidate : candidates) {
            step(candidate, evidence, {source, candidate.plan, layer, &moments}, stop);
        }
        progress.update(layer + 1, "");
    }
    std::vector<Loss> losses{Loss(source_hidden, evidence)};
    for (const auto& candidate : candidates) losses.emplace_back(candidate.hidden, evidence);
    work_through_output(losses, evidence, stop);
    Trial trial{.windows = std::ssize(evidence.held_out), .source = losses[0].perplexity(), .alternatives = {}};
    std::string text = fmt::format("perplexity {:.1f} of the source", trial.source);
    for (std::size_t i = 0; i < alternatives.size(); ++i) {
        trial.alternatives.push_back({alternatives[i].name, losses[i + 1].perplexity()});
        text += fmt::format(", {:.1f} with {}", trial.alternatives[i].perplexity, alternatives[i].name);
    }
    progress.update(layers + 1, text);
    progress.end();
    return trial;
}

Choice choose(const std::vector<Alternative>& alternatives, const Evidence& evidence, core::Progress& progress,
              const std::stop_token& stop) {
    if (alternatives.size() == 1) return {alternatives.front().plan, std::nullopt};
    core::invariant(!evidence.held_out.empty(), "choices are refused where nothing was held out");
    auto trial = try_alternatives(alternatives, evidence, progress, stop);
    std::size_t best = 0;
    for (std::size_t i = 1; i < alternatives.size(); ++i) {
        const bool better = trial.alternatives[i].perplexity < trial.alternatives[best].perplexity;
        if (alternatives[i].eligible && better) best = i;
    }
    trial.alternatives[best].chosen = true;
    return {alternatives[best].plan, std::move(trial)};
}

}  // namespace mha2mla::convert
