#include "calibrate/layer_walk.h"

#include <span>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/progress.h"
#include "model/decoder_layer.h"

namespace mha2mla::calibrate {

torch::Tensor embed_tokens(const checkpoint::Checkpoint& source, const std::vector<int>& tokens) {
    const auto& config = source.config();
    const checkpoint::Shape shape{config.vocab_size, config.hidden_size};
    const auto width = static_cast<std::size_t>(config.hidden_size);
    if (tokens.empty()) throw core::Error({.what = "a calibration window is empty", .where = "--calibration"});
    auto rows = torch::empty({1, static_cast<std::int64_t>(tokens.size()), config.hidden_size}, torch::kFloat32);
    auto* out = rows.data_ptr<float>();
    for (const int token : tokens) {
        if (token < 0 || token >= config.vocab_size) {
            throw core::Error({.what = "a calibration token is outside the model's vocabulary",
                               .expected = "0.." + std::to_string(config.vocab_size - 1),
                               .got = std::to_string(token),
                               .where = "--calibration"});
        }
        source.read_rows("model.embed_tokens.weight", shape, token, 1, std::span<float>(out, width));
        out += width;
    }
    return rows;
}

LayerWalk::LayerWalk(const checkpoint::Checkpoint& source, const std::vector<std::vector<int>>& windows,
                     const model::ModelOptions& options, const RestOptions& rest)
    : source_(source), options_(options), hidden_(rest) {
    for (const auto& tokens : windows) hidden_.append(embed_tokens(source, tokens));
}

LayerWalk::LayerWalk(const checkpoint::Checkpoint& source, int next_layer, HiddenStates hidden,
                     const model::ModelOptions& options)
    : source_(source), options_(options), hidden_(std::move(hidden)), next_layer_(next_layer) {}

InversePower LayerWalk::step(std::initializer_list<Visitor> visitors, const std::stop_token& stop) {
    core::invariant(next_layer_ < source_.config().num_hidden_layers, "a walk ends at the last layer");
    const torch::NoGradGuard no_gradients;
    auto layer = model::load_layer(source_, next_layer_++, options_);
    auto* attention = dynamic_cast<model::GqaAttentionImpl*>(&layer->attention());
    core::invariant(attention != nullptr, "a walk goes through a source model");
    const auto input = [&](std::size_t window) {
        core::throw_if_stopped(stop);
        return hidden_.get(window).to(options_.device, options_.dtype);
    };
    for (const auto& visit : visitors) {
        for (std::size_t i = 0; i < hidden_.windows(); ++i) visit(*attention, layer->attention_input(input(i)));
    }
    InversePower power;
    for (std::size_t i = 0; i < hidden_.windows(); ++i) {
        const auto attended = layer->attend(input(i));
        const auto squares = attended.to(torch::kFloat64).square().sum(-1);
        power.sum += torch::where(squares > 0, squares.reciprocal(), 0.0).sum().item<double>();
        power.tokens += static_cast<double>(attended.size(1));
        hidden_.replace(i, layer->feed_forward(attended));
    }
    return power;
}

}  // namespace mha2mla::calibrate
