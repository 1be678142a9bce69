#include "convert/method.h"
#include "model/weights.h"

namespace mha2mla::convert {

SourceAttention load_attention(const checkpoint::Checkpoint& source, int layer, torch::Device device) {
    const auto& config = source.config();
    model::ModelOptions options;
    options.device = device;
    const auto weights = model::Weights(source, options).under("model.layers." + std::to_string(layer) + ".self_attn");
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t query = std::int64_t{config.num_attention_heads} * config.head_dim;
    const std::int64_t key = std::int64_t{config.num_key_value_heads} * config.head_dim;
    const auto bias = [&](const char* name, std::int64_t size) {
        return config.attention_bias ? weights.load(name, {size}) : torch::Tensor();
    };
    return {.q_weight = weights.load("q_proj.weight", {query, hidden}),
            .q_bias = bias("q_proj.bias", query),
            .k_weight = weights.load("k_proj.weight", {key, hidden}),
            .k_bias = bias("k_proj.bias", key),
            .v_weight = weights.load("v_proj.weight", {key, hidden}),
            .v_bias = bias("v_proj.bias", key),
            .o_weight = weights.load("o_proj.weight", {hidden, query}),
            .o_bias = bias("o_proj.bias", hidden)};
}

}  // namespace mha2mla::convert
