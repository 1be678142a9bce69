#include <algorithm>

#include "runtime/attend.h"
#include "runtime/attention.h"
#include "runtime/linear.h"

// Absorbed form: logits = (q~·c + q_rope·k_rope) scale with q~ = W_ukᵀ q_nope; out = W_uv (Σ p c). All heads share the
// cached rows [latent | rotary keys]. Query rows are ordered [G, tokens, group].

namespace mha2mla::runtime {
namespace {

/// Fills the rotary columns of all query rows: RoPE of the head's rotary pairs in its own block, zeros in the others.
void rotate_rotary_queries(const AttentionInput& input, const MlaWeights& weights, const Compute& compute) {
    const std::int64_t dr = weights.qk_rope_head_dim;
    const auto key_heads = static_cast<std::int64_t>(weights.rope_pairs.size());
    const std::int64_t row_width = weights.kv_lora_rank + key_heads * dr;
    const std::int64_t rows = input.chunk.tokens * input.shape.heads;
    float* const rotary = compute.workspace.query.data() + weights.kv_lora_rank;
    parallel_ranges(compute.pool, rows, key_heads > 1 ? rows * row_width : 0,
                    [&](int, std::int64_t begin, std::int64_t end) {
                        for (std::int64_t r = begin; r < end; ++r)
                            std::fill_n(rotary + r * row_width, key_heads * dr, 0.F);
                    });
    rotate_query(input,
                 {.pairs = dr / 2,
                  .pairs_of_heads = &weights.rope_pairs,
                  .factors = &weights.rope_factors,
                  .out = rotary,
                  .out_stride = row_width,
                  .own_column = weights.rope_query_column,
                  .kv_head_columns = dr},
                 compute);
}

/// q~ into the latent columns of the query rows.
void absorb_queries(const AttentionInput& input, const MlaWeights& weights, std::int64_t row_width,
                    const Compute& compute) {
    const Workspace& workspace = compute.workspace;
    const std::int64_t tokens = input.chunk.tokens;
    if (weights.qk_nope_head_dim == 0) {  // rotary keys alone: the latent only carries values
        const std::int64_t rows = tokens * input.shape.heads;
        for (std::int64_t row = 0; row < rows; ++row) {
            std::fill_n(workspace.query.data() + row * row_width, weights.kv_lora_rank, 0.F);
        }
        return;
    }
    pick_unrotated_query(input, weights, workspace.nope.data(), weights.qk_nope_head_dim, compute);
    run_grouped_linear({.x = workspace.nope.data(),
                        .rows = tokens * input.shape.group,
                        .matrices = &weights.query_absorb,
                        .y = workspace.query.data(),
                        .y_stride = row_width},
                       compute);
}

}  // namespace

void attend_absorbed(const AttentionInput& input, const MlaWeights& weights, const Compute& compute) {
    const AttentionShape& shape = input.shape;
    const Chunk& chunk = input.chunk;
    const Workspace& workspace = compute.workspace;
    const cache::PageFormat& format = chunk.cache.pool().format(input.layer);
    const cache::Plane& plane = format.planes[cache::latent_plane];
    rotate_rotary_queries(input, weights, compute);
    absorb_queries(input, weights, plane.width, compute);
    chunk.cache.list_blocks(input.layer, cache::latent_plane, cache::latent_plane, chunk.keys(),
                            workspace.blocks.data());
    attend({.dtype = format.dtype,
            .streams = 1,
            .rows = chunk.tokens * shape.heads,
            .key_width = plane.width,
            .value_width = weights.kv_lora_rank,
            .key_stride_bytes = static_cast<std::int64_t>(plane.row_bytes),
            .value_stride_bytes = static_cast<std::int64_t>(plane.row_bytes),
            .scale = shape.softmax_scale,
            .blocks = workspace.blocks.data(),
            .sealed = format.sealed_format(cache::latent_plane, cache::latent_plane),
            .block_count = chunk.pages(),
            .keys = chunk.keys(),
            .q = workspace.query.data(),
            .visible = workspace.visible.data(),
            .first_key = chunk.cache.pool().sink_tokens(),
            .positions = input.positions,
            .position_q = workspace.position_query.data(),
            .out = workspace.attended.data(),
            .log_sum = workspace.part_max.data()},
           compute);
    run_grouped_linear({.x = workspace.attended.data(),
                        .rows = chunk.tokens * shape.group,
                        .matrices = &weights.value_up,
                        .y = workspace.grouped.data(),
                        .y_stride = shape.value_dim},
                       compute);
}

}  // namespace mha2mla::runtime
