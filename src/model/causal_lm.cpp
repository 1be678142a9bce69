#include "model/causal_lm.h"

#include <string>

#include "model/recompute.h"

namespace mha2mla::model {

DecoderImpl::DecoderImpl(const Weights& weights, const checkpoint::ModelConfig& config)
    : recompute_(weights.options().recompute) {
    embed_tokens = register_module("embed_tokens",
                                   Embedding(weights.under("embed_tokens"), config.vocab_size, config.hidden_size));
    torch::nn::ModuleList list;
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        const auto layer_weights = weights.under("layers." + std::to_string(layer));
        layers_.push_back(DecoderLayer(layer_weights, config, layer));
        list->push_back(layers_.back());
    }
    register_module("layers", list);
    norm_ = register_module("norm", RmsNorm(weights.under("norm"), config.hidden_size, config.rms_norm_eps));
}

torch::Tensor DecoderImpl::forward(const torch::Tensor& token_ids) {
    auto hidden = embed_tokens(token_ids);
    for (auto& layer : layers_) {
        const bool again = recompute_ && torch::GradMode::is_enabled();
        hidden = again ? recomputed([layer](const torch::Tensor& x) mutable { return layer->forward(x); }, hidden)
                       : layer(hidden);
    }
    return norm_(hidden);
}

CausalLmImpl::CausalLmImpl(const checkpoint::Checkpoint& source, const ModelOptions& options)
    : CausalLmImpl(Weights(source, options), source.config()) {}

CausalLmImpl::CausalLmImpl(const Weights& weights, const checkpoint::ModelConfig& config) {
    model_ = register_module("model", Decoder(weights.under("model"), config));
    if (config.tie_word_embeddings) return;
    const LinearShape shape{config.hidden_size, config.vocab_size, false};
    lm_head_ = register_module("lm_head", Linear(weights.under("lm_head"), shape));
}

}  // namespace mha2mla::model
