#include "model/decoder_layer.h"

#include <string>

#include "model/mla_attention.h"

namespace mha2mla::model {
namespace {

/// The one place that knows the kinds of attention.
std::shared_ptr<Attention> make_attention(const Weights& weights, const checkpoint::ModelConfig& config, int layer) {
    if (config.is_mla()) return std::make_shared<MlaAttentionImpl>(weights, config, layer);
    return std::make_shared<GqaAttentionImpl>(weights, config);
}

}  // namespace

DecoderLayerImpl::DecoderLayerImpl(const Weights& weights, const checkpoint::ModelConfig& config, int layer) {
    const auto norm = [&](const char* name) {
        return register_module(name, RmsNorm(weights.under(name), config.hidden_size, config.rms_norm_eps));
    };
    input_layernorm_ = norm("input_layernorm");
    self_attn_ = register_module("self_attn", make_attention(weights.under("self_attn"), config, layer));
    post_attention_layernorm_ = norm("post_attention_layernorm");
    mlp_ = register_module("mlp", Mlp(weights.under("mlp"), config));
}

DecoderLayer load_layer(const checkpoint::Checkpoint& source, int index, const ModelOptions& options) {
    const auto weights = Weights(source, options).under("model.layers." + std::to_string(index));
    return DecoderLayer(weights, source.config(), index);
}

}  // namespace mha2mla::model
