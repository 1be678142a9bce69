#include "runtime/weights.h"

#include <memory>
#include <string>
#include <utility>

#include "core/error.h"
#include "runtime/weight_loader.h"

namespace mha2mla::runtime {
namespace {

using checkpoint::MlaConfig;
using checkpoint::ModelConfig;

std::vector<std::int32_t> to_int32(const std::vector<int>& values) { return {values.begin(), values.end()}; }

struct KvUpShape {
    std::int64_t heads, dn, dv, rank;
};

std::vector<float> transpose(const std::vector<float>& matrix, std::int64_t rows, std::int64_t columns) {
    std::vector<float> transposed(matrix.size());
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < columns; ++c) {
            transposed[static_cast<std::size_t>(c * rows + r)] = matrix[static_cast<std::size_t>(r * columns + c)];
        }
    }
    return transposed;
}

/// Splits the rows of kv_b_proj: dn key rows of a KV head, then dv value rows, and so on.
void load_kv_up(const checkpoint::Checkpoint& model, int layer, const KvUpShape& shape, const WeightLoader& loader,
                MlaWeights& weights) {
    const auto [heads, dn, dv, rank] = shape;
    const std::int64_t head_rows = dn + dv;
    const auto name = [&](const char* part, std::int64_t head) {
        return checkpoint::layer_tensor(layer, "self_attn." + std::string(part) + "." + std::to_string(head));
    };
    const auto read = [&](std::int64_t first_row, std::int64_t rows) {
        std::vector<float> values(static_cast<std::size_t>(rows * shape.rank));
        model.read_rows(checkpoint::layer_tensor(layer, "self_attn.kv_b_proj.weight"),
                        {shape.heads * head_rows, shape.rank}, first_row, rows, values);
        return values;
    };
    for (std::int64_t g = 0; g < heads; ++g) {
        const std::int64_t first = g * head_rows;
        weights.value_up.push_back(
            loader.derived(name("value_up", g), dv, rank, [&] { return read(first + shape.dn, shape.dv); }));
        if (dn == 0) continue;
        weights.key_up.push_back(loader.derived(name("key_up", g), dn, rank, [&] { return read(first, shape.dn); }));
        weights.query_absorb.push_back(loader.derived(
            name("query_absorb", g), rank, dn, [&] { return transpose(read(first, shape.dn), shape.dn, shape.rank); }));
    }
}

/// k_mean [G, d] (half-split pairs) as factors of the query: conj(k_mean) * scale for each query head.
std::vector<float> position_factors(const std::vector<float>& k_mean, const ModelConfig& config) {
    const auto scale = static_cast<float>(config.mla().softmax_scale);
    const int pairs = config.rope_pairs();
    std::vector<float> factors;
    for (int head = 0; head < config.num_attention_heads; ++head) {
        const float* const mean = k_mean.data() + head / config.group_size() * config.head_dim;
        for (int i = 0; i < pairs; ++i) {
            factors.push_back(mean[i] * scale);
            factors.push_back(-mean[i + pairs] * scale);
        }
    }
    return factors;
}

/// The factors and constants of the query that the checkpoint may have.
void load_query_factors(const checkpoint::Checkpoint& model, int layer, MlaWeights& weights) {
    const ModelConfig& config = model.config();
    const MlaConfig& mla = config.mla();
    const std::int64_t heads = config.num_attention_heads;
    const std::int64_t nope = weights.qk_nope_head_dim / 2, rope = weights.qk_rope_head_dim / 2;
    const auto read = [&](const char* name, const checkpoint::Shape& shape) {
        return model.read(checkpoint::layer_tensor(layer, name), shape);
    };
    if (mla.q_nope_factor && nope > 0) weights.nope_factors = read("self_attn.q_nope_factor", {heads, nope, 2});
    if (mla.q_rope_factor && rope > 0) weights.rope_factors = read("self_attn.q_rope_factor", {heads, rope, 2});
    if (!mla.positional_part) return;
    weights.position_factors =
        position_factors(read("self_attn.k_mean", {config.num_key_value_heads, config.head_dim}), config);
}

std::vector<Projection> key_value_projections(const ModelConfig& config, int layer) {
    const std::int64_t width = std::int64_t{config.num_key_value_heads} * config.head_dim;
    return {{checkpoint::layer_tensor(layer, "self_attn.k_proj"), width},
            {checkpoint::layer_tensor(layer, "self_attn.v_proj"), width}};
}

/// Where the rotary query's own rows start, after q and kv_a; 0 where it has none.
std::int64_t rope_query_column(const ModelConfig& config, int layer) {
    const MlaConfig& mla = config.mla();
    if (!mla.q_rope_proj || mla.qk_rope_head_dim[static_cast<std::size_t>(layer)] == 0) return 0;
    return std::int64_t{config.num_attention_heads} * config.head_dim + mla.cached_elements(layer);
}

MlaWeights load_mla(const checkpoint::Checkpoint& model, int layer, const WeightLoader& loader) {
    const ModelConfig& config = model.config();
    const MlaConfig& mla = config.mla();
    const auto l = static_cast<std::size_t>(layer);
    const KvUpShape shape{config.num_key_value_heads, mla.qk_nope_head_dim[l], mla.v_head_dim, mla.head_rank(layer)};
    MlaWeights weights{.kv_lora_rank = mla.kv_lora_rank[l],
                       .latent_groups = mla.latent_groups,
                       .qk_nope_head_dim = shape.dn,
                       .qk_rope_head_dim = mla.qk_rope_head_dim[l],
                       .rope_query_column = rope_query_column(config, layer),
                       .key_up = {},
                       .query_absorb = {},
                       .value_up = {},
                       .nope_pairs = {},
                       .rope_pairs = {},
                       .nope_factors = {},
                       .rope_factors = {},
                       .position_factors = {},
                       .sink_in = {}};
    load_query_factors(model, layer, weights);
    if (mla.sink_tokens > 0) {
        weights.sink_in =
            loader.linear(key_value_projections(config, layer), config.hidden_size, config.attention_bias);
    }
    load_kv_up(model, layer, shape, loader, weights);
    for (int g = 0; g < config.num_key_value_heads; ++g) {
        weights.nope_pairs.push_back(to_int32(mla.unrotated_pairs(layer, g, config.rope_pairs())));
        core::invariant(2 * static_cast<std::int64_t>(weights.nope_pairs.back().size()) == shape.dn,
                        "the un-rotated pairs fill qk_nope_head_dim");
    }
    for (const auto& pairs : mla.rope_pairs[l]) weights.rope_pairs.push_back(to_int32(pairs));
    return weights;
}

/// The projections that read the attention's input, in the order of LayerWeights::attention_in.
std::vector<Projection> attention_inputs(const ModelConfig& config, int layer) {
    const auto name = [&](const char* tensor) { return checkpoint::layer_tensor(layer, tensor); };
    const std::int64_t query = std::int64_t{config.num_attention_heads} * config.head_dim;
    std::vector<Projection> inputs{{name("self_attn.q_proj"), query}};
    if (config.is_mla()) {
        inputs.push_back({name("self_attn.kv_a_proj_with_mqa"), config.mla().cached_elements(layer)});
        if (rope_query_column(config, layer) > 0) {
            const int width = config.mla().qk_rope_head_dim[static_cast<std::size_t>(layer)];
            inputs.push_back({name("self_attn.q_rope_proj"), std::int64_t{config.num_attention_heads} * width});
        }
    } else {
        for (auto& projection : key_value_projections(config, layer)) inputs.push_back(std::move(projection));
    }
    return inputs;
}

LayerWeights load_layer(const checkpoint::Checkpoint& model, int layer, const WeightLoader& loader) {
    const ModelConfig& config = model.config();
    const auto name = [&](const char* tensor) { return checkpoint::layer_tensor(layer, tensor); };
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t inner = config.intermediate_size;
    const int value_width = config.is_mla() ? config.mla().v_head_dim : config.head_dim;
    LayerWeights weights;
    weights.input_norm = loader.vector(name("input_layernorm.weight"), hidden);
    weights.post_attention_norm = loader.vector(name("post_attention_layernorm.weight"), hidden);
    weights.attention_in = loader.linear(attention_inputs(config, layer), hidden, config.attention_bias);
    weights.attention_out =
        loader.linear({{name("self_attn.o_proj"), hidden}}, std::int64_t{config.num_attention_heads} * value_width,
                      config.attention_bias);
    weights.gate = loader.linear({{name("mlp.gate_proj"), inner}}, hidden, config.mlp_bias);
    weights.up = loader.linear({{name("mlp.up_proj"), inner}}, hidden, config.mlp_bias);
    weights.down = loader.linear({{name("mlp.down_proj"), hidden}}, inner, config.mlp_bias);
    if (config.is_mla()) weights.attention = load_mla(model, layer, loader);
    return weights;
}

std::size_t bytes_of(const std::vector<Matrix>& matrices) {
    std::size_t bytes = 0;
    for (const Matrix& matrix : matrices) bytes += matrix.bytes();
    return bytes;
}

}  // namespace

std::size_t LayerWeights::step_bytes() const {
    std::size_t bytes = 0;
    for (const Linear* linear : {&attention_in, &attention_out, &gate, &up, &down}) bytes += linear->weight.bytes();
    const auto* mla = std::get_if<MlaWeights>(&attention);
    return mla == nullptr ? bytes : bytes + bytes_of(mla->query_absorb) + bytes_of(mla->value_up);
}

std::size_t ModelWeights::step_bytes() const {
    std::size_t bytes = output.bytes();
    for (const LayerWeights& layer : layers) bytes += layer.step_bytes();
    return bytes;
}

ModelWeights load_weights(const checkpoint::Checkpoint& model, const WeightOptions& options, core::ThreadPool& pool,
                          core::Progress& progress) {
    const ModelConfig& config = model.config();
    ModelWeights weights;
    if (!options.packed.empty()) {
        weights.store = WeightStore(std::make_shared<PackedWeights>(options.packed, model, options.formats));
    }
    const WeightLoader loader(model, options.formats, weights.store, pool);
    progress.begin("load", config.num_hidden_layers + 1);
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        weights.layers.push_back(load_layer(model, layer, loader));
        progress.update(layer + 1, "");
    }
    weights.final_norm = loader.vector("model.norm.weight", config.hidden_size);
    weights.embedding = loader.output("model.embed_tokens.weight", config.vocab_size, config.hidden_size);
    weights.output = config.tie_word_embeddings
                         ? weights.embedding
                         : loader.output("lm_head.weight", config.vocab_size, config.hidden_size);
    progress.end();
    model.tensors().release_pages();
    return weights;
}

}  // namespace mha2mla::runtime
