#include "runtime/transformer.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "runtime/linear.h"

namespace mha2mla::runtime {
namespace {

using checkpoint::ModelConfig;

bool has_positional_part(const ModelConfig& config) { return config.is_mla() && config.mla().positional_part; }

std::optional<PositionTable> position_table(const ModelConfig& config, const RopeTable& rope, core::DType dtype) {
    if (!has_positional_part(config)) return std::nullopt;
    return std::optional<PositionTable>(std::in_place, rope, dtype);
}

void widen(std::int64_t& width, std::int64_t needed) { width = std::max(width, needed); }

void add_mla_widths(const ModelConfig& config, int layer, WorkspaceShape& shape) {
    const checkpoint::MlaConfig& mla = config.mla();
    const auto l = static_cast<std::size_t>(layer);
    widen(shape.expanded_key, mla.qk_nope_head_dim[l] + mla.qk_rope_head_dim[l]);
    widen(shape.expanded_value, mla.v_head_dim);
    widen(shape.latent_width, mla.row_width(layer));
    widen(shape.key_width, std::max(shape.latent_width, shape.expanded_key));
    widen(shape.value_width, std::max(mla.head_rank(layer), mla.v_head_dim));
    widen(shape.nope_width, mla.qk_nope_head_dim[l]);
}

WorkspaceShape workspace_shape(const ModelConfig& config, const ModelWeights& weights, core::DType kv_cache,
                               std::int64_t positions, int workers) {
    const AttentionShape attention(config);
    WorkspaceShape shape{.tokens = max_chunk_tokens,
                         .workers = workers,
                         .hidden = config.hidden_size,
                         .intermediate = config.intermediate_size,
                         .vocab = config.vocab_size,
                         .heads = attention.heads,
                         .kv_heads = attention.kv_heads,
                         .heads_width = attention.heads * attention.value_dim,
                         .key_width = config.head_dim,
                         .value_width = config.head_dim,
                         .position_width = has_positional_part(config) ? config.head_dim : 0,
                         .pages = positions / cache::page_tokens,
                         .kv_cache = kv_cache};
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        widen(shape.projected, weights.layers[static_cast<std::size_t>(layer)].attention_in.weight.outputs());
        if (config.is_mla()) add_mla_widths(config, layer, shape);
    }
    if (config.is_mla() && config.mla().sink_tokens > 0) {
        shape.sink_tokens = config.mla().sink_tokens;
        shape.sink_width = config.head_dim;
    }
    return shape;
}

}  // namespace

std::vector<cache::PageFormat> page_formats(const ModelConfig& config, const cache::CacheFormat& format) {
    std::vector<cache::PageFormat> formats;
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        if (!config.is_mla()) {
            formats.push_back(cache::grouped_query_format(format, config.num_key_value_heads, config.head_dim));
            continue;
        }
        const checkpoint::MlaConfig& mla = config.mla();
        const int rank = mla.kv_lora_rank[static_cast<std::size_t>(layer)];
        formats.push_back(cache::latent_format(format, rank, mla.cached_elements(layer) - rank, mla.latent_groups));
    }
    return formats;
}

cache::SinkFormat sink_format(const ModelConfig& config, core::DType dtype) {
    if (!config.is_mla() || config.mla().sink_tokens == 0) return {};
    return {.tokens = config.mla().sink_tokens,
            .layers = config.num_hidden_layers,
            .layer = cache::grouped_query_format(dtype, config.num_key_value_heads, config.head_dim)};
}

Transformer::Transformer(const ModelConfig& config, ModelWeights weights, const DecoderOptions& options,
                         std::int64_t positions, core::ThreadPool& pool)
    : config_(config),
      weights_(std::move(weights)),
      form_(options.attention),
      attention_shape_(config_),
      rope_(config_, positions, pool),
      positions_(position_table(config_, rope_, options.kv_cache.content.dtype)),
      workspace_(workspace_shape(config_, weights_, options.kv_cache.content.dtype, positions, pool.size())),
      compute_{.kernels = kernels::kernels(), .pool = pool, .workspace = workspace_} {
    chunks_.reserve(max_chunk_tokens);
}

void Transformer::add(cache::SequenceCache& sequence, std::span<const int> tokens) {
    const auto count = static_cast<std::int64_t>(tokens.size());
    core::invariant(count > 0 && tokens_ + count <= max_chunk_tokens, "a batch holds 1 to max_chunk_tokens tokens");
    try {
        sequence.reserve(count);
    } catch (...) {
        chunks_.clear();
        tokens_ = 0;
        throw;
    }
    chunks_.push_back({.cache = sequence,
                       .first_position = sequence.tokens(),
                       .tokens = count,
                       .first_row = tokens_,
                       .token_ids = tokens.data()});
    tokens_ += count;
}

void Transformer::forward(core::FunctionRef<void(const LayerStates&)> visit) {
    core::invariant(tokens_ > 0, "a batch has tokens");
    embed();
    list_visible_keys();
    const std::span<const float> stream(workspace_.hidden.data(),
                                        static_cast<std::size_t>(tokens_ * config_.hidden_size));
    for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
        visit({.layer = layer, .attended = false, .x_TE = stream});
        run_attention(layer);
        visit({.layer = layer, .attended = true, .x_TE = stream});
        run_mlp(layer);
    }
    visit({.layer = config_.num_hidden_layers, .attended = false, .x_TE = stream});
    for (const Chunk& chunk : chunks_) chunk.cache.commit(chunk.tokens);
    chunks_.clear();
    tokens_ = 0;
}

void Transformer::embed() {
    const std::int64_t width = config_.hidden_size;
    parallel_rows(chunks_, width, compute_, [&](int, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
            kernels::unpack_row(weights_.embedding.packed(), chunk.token_ids[row],
                                workspace_.hidden.data() + (chunk.first_row + row) * width);
        }
    });
}

/// Rows of a chunk are ordered [G, tokens, group] (one stream) or, of one of L or G streams, [G / L, tokens, group] or
/// [tokens, group]: the start of the same list, since every KV head has the same tokens.
void Transformer::list_visible_keys() {
    std::int64_t* visible = workspace_.visible.data();
    for (const Chunk& chunk : chunks_) {
        for (std::int64_t g = 0; g < attention_shape_.kv_heads; ++g) {
            for (std::int64_t token = 0; token < chunk.tokens; ++token) {
                visible = std::fill_n(visible, attention_shape_.group, chunk.first_position + token + 1);
            }
        }
    }
}

void Transformer::run_attention(int layer) {
    const LayerWeights& weights = weights_.layers[static_cast<std::size_t>(layer)];
    normalize(workspace_.hidden.data(), tokens_, weights.input_norm);
    run_linear({.x = workspace_.normed.data(),
                .rows = tokens_,
                .linear = &weights.attention_in,
                .y = workspace_.projected.data()},
               compute_);
    const AttentionBatch batch{.shape = attention_shape_,
                               .rope = rope_,
                               .positions = positions_ ? &*positions_ : nullptr,
                               .chunks = chunks_,
                               .layer = layer,
                               .projected_width = weights.attention_in.weight.outputs()};
    if (const auto* mla = std::get_if<MlaWeights>(&weights.attention)) {
        mla_attention(batch, *mla, form_, compute_);
    } else {
        gqa_attention(batch, compute_);
    }
    run_linear({.x = workspace_.heads.data(),
                .rows = tokens_,
                .linear = &weights.attention_out,
                .y = workspace_.hidden.data(),
                .accumulate = true},
               compute_);
}

void Transformer::normalize(const float* x, std::int64_t rows, const std::vector<float>& weight) {
    const std::int64_t width = config_.hidden_size;
    parallel_ranges(compute_.pool, rows, rows * width, [&](int, std::int64_t begin, std::int64_t end) {
        compute_.kernels.rms_norm({.x = x + begin * width,
                                   .weight = weight.data(),
                                   .y = workspace_.normed.data() + begin * width,
                                   .rows = end - begin,
                                   .width = width,
                                   .eps = static_cast<float>(config_.rms_norm_eps)});
    });
}

void Transformer::run_mlp(int layer) {
    const LayerWeights& weights = weights_.layers[static_cast<std::size_t>(layer)];
    normalize(workspace_.hidden.data(), tokens_, weights.post_attention_norm);
    const std::int64_t inner = config_.intermediate_size;
    float* const gate = workspace_.gate.data();
    float* const up = workspace_.up.data();
    // A worker computes the same columns of gate and up, so it can join them without waiting for the others.
    parallel_ranges(
        compute_.pool, weights.gate.weight.packed().tiles(), 2 * tokens_ * inner * config_.hidden_size,
        [&](int worker, std::int64_t first_tile, std::int64_t end_tile) {
            for (const auto& [linear, y] : {std::pair{&weights.gate, gate}, std::pair{&weights.up, up}}) {
                auto params = linear_params({.x = workspace_.normed.data(), .rows = tokens_, .linear = linear, .y = y},
                                            first_tile, end_tile);
                params.scratch = workspace_.kernel_scratch(worker);
                compute_.kernels.linear(params);
            }
            const std::int64_t column = first_tile * kernels::tile_rows;
            const std::int64_t columns = std::min(end_tile * kernels::tile_rows, inner) - column;
            for (std::int64_t at = column; at < tokens_ * inner; at += inner) {
                compute_.kernels.swiglu({.gate = gate + at, .up = up + at, .y = gate + at, .count = columns});
            }
        });
    run_linear({.x = gate, .rows = tokens_, .linear = &weights.down, .y = workspace_.hidden.data(), .accumulate = true},
               compute_);
}

const float* Transformer::logits(std::span<const std::int64_t> rows) {
    const std::int64_t width = config_.hidden_size;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        compute_.kernels.rms_norm({.x = workspace_.hidden.data() + rows[i] * width,
                                   .weight = weights_.final_norm.data(),
                                   .y = workspace_.normed.data() + static_cast<std::int64_t>(i) * width,
                                   .rows = 1,
                                   .width = width,
                                   .eps = static_cast<float>(config_.rms_norm_eps)});
    }
    const Linear output{.weight = weights_.output, .bias = {}};
    run_linear({.x = workspace_.normed.data(),
                .rows = static_cast<std::int64_t>(rows.size()),
                .linear = &output,
                .y = workspace_.logits.data()},
               compute_);
    return workspace_.logits.data();
}

}  // namespace mha2mla::runtime
