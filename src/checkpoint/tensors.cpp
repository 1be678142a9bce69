#include "checkpoint/tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

constexpr std::int64_t max_elements = std::int64_t{1} << 48;

/// Collects the tensors of one layer under their full names.
class LayerList {
public:
    LayerList(const ModelConfig& config, int layer) : config_(config), layer_(layer) {}

    /// A linear map: weight [out, in], and bias [out] where the model has one.
    void linear(const std::string& name, std::int64_t out, std::int64_t in, bool has_bias) {
        add(name + ".weight", {out, in});
        if (has_bias) add(name + ".bias", {out});
    }
    void norm(const std::string& name) { add(name + ".weight", {config_.hidden_size}); }

    void add(const std::string& name, Shape shape) { specs_.push_back({layer_tensor(layer_, name), std::move(shape)}); }

    std::vector<TensorSpec> take() { return std::move(specs_); }

private:
    const ModelConfig& config_;
    int layer_;
    std::vector<TensorSpec> specs_;
};

/// Keys and values of the source: all of its cache, or what exact sink tokens of an MLA model keep.
void add_key_value(LayerList& list, const ModelConfig& config, const GqaConfig&, int) {
    const std::int64_t width = std::int64_t{config.num_key_value_heads} * config.head_dim;
    list.linear("self_attn.k_proj", width, config.hidden_size, config.attention_bias);
    list.linear("self_attn.v_proj", width, config.hidden_size, config.attention_bias);
}

void add_optional_parts(LayerList& list, const ModelConfig& config, const MlaConfig& mla, int layer) {
    const auto l = static_cast<std::size_t>(layer);
    const std::int64_t heads = config.num_attention_heads;
    const std::int64_t nope_pairs = mla.qk_nope_head_dim[l] / 2;
    const std::int64_t rope_pairs = mla.qk_rope_head_dim[l] / 2;
    if (mla.q_nope_factor && nope_pairs > 0) list.add("self_attn.q_nope_factor", {heads, nope_pairs, 2});
    if (mla.q_rope_factor && rope_pairs > 0) list.add("self_attn.q_rope_factor", {heads, rope_pairs, 2});
    if (mla.q_rope_proj && rope_pairs > 0) {
        list.linear("self_attn.q_rope_proj", heads * 2 * rope_pairs, config.hidden_size, config.attention_bias);
    }
    if (mla.positional_part) list.add("self_attn.k_mean", {config.num_key_value_heads, config.head_dim});
    if (mla.sink_tokens > 0) add_key_value(list, config, GqaConfig{}, layer);
}

void add_key_value(LayerList& list, const ModelConfig& config, const MlaConfig& mla, int layer) {
    const auto l = static_cast<std::size_t>(layer);
    list.linear("self_attn.kv_a_proj_with_mqa", mla.cached_elements(layer), config.hidden_size, config.attention_bias);
    const std::int64_t head_rows = mla.qk_nope_head_dim[l] + mla.v_head_dim;
    list.linear("self_attn.kv_b_proj", config.num_key_value_heads * head_rows, mla.head_rank(layer), false);
    add_optional_parts(list, config, mla, layer);
}

void add_attention(LayerList& list, const ModelConfig& config, int layer) {
    const std::int64_t heads = config.num_attention_heads;
    const std::int64_t value_width = config.is_mla() ? config.mla().v_head_dim : config.head_dim;
    list.linear("self_attn.q_proj", heads * config.head_dim, config.hidden_size, config.attention_bias);
    std::visit([&](const auto& kind) { add_key_value(list, config, kind, layer); }, config.attention);
    list.linear("self_attn.o_proj", config.hidden_size, heads * value_width, config.attention_bias);
}

}  // namespace

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::int64_t element_count(const Shape& shape, const std::string& where) {
    std::int64_t count = 1;
    for (const auto extent : shape) {
        if (extent < 0 || extent > max_elements || (extent > 0 && count > max_elements / extent)) {
            throw core::Error({.what = fmt::format("shape {} is not usable", to_string(shape)),
                               .expected = "extents from 0 and at most 2^48 elements",
                               .where = where});
        }
        count *= extent;
    }
    return count;
}

bool TensorSource::has_codes(std::string_view /*name*/) const { return false; }

void TensorSource::read_codes(std::string_view /*name*/, std::int64_t /*first_row*/, std::int64_t /*rows*/,
                              std::span<core::CodeGroup> /*out*/) const {
    core::invariant(false, "codes are read only where has_codes says so");
}

std::string layer_tensor(int layer, std::string_view name) { return fmt::format("model.layers.{}.{}", layer, name); }

std::vector<TensorSpec> expected_layer_tensors(const ModelConfig& config, int layer) {
    LayerList list(config, layer);
    list.norm("input_layernorm");
    add_attention(list, config, layer);
    list.norm("post_attention_layernorm");
    list.linear("mlp.gate_proj", config.intermediate_size, config.hidden_size, config.mlp_bias);
    list.linear("mlp.up_proj", config.intermediate_size, config.hidden_size, config.mlp_bias);
    list.linear("mlp.down_proj", config.hidden_size, config.intermediate_size, config.mlp_bias);
    return list.take();
}

std::vector<TensorSpec> expected_tensors(const ModelConfig& config) {
    const Shape embedding{config.vocab_size, config.hidden_size};
    std::vector<TensorSpec> specs{{"model.embed_tokens.weight", embedding}};
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        for (auto& spec : expected_layer_tensors(config, layer)) specs.push_back(std::move(spec));
    }
    specs.push_back({"model.norm.weight", {config.hidden_size}});
    if (!config.tie_word_embeddings) specs.push_back({"lm_head.weight", embedding});
    return specs;
}

}  // namespace mha2mla::checkpoint
