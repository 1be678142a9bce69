#include <algorithm>

#include "runtime/attend.h"
#include "runtime/attention.h"
#include "runtime/linear.h"

// Absorbed form: logits = (q~·c + q_rope·k_rope) scale with q~ = W_ukᵀ q_nope; out = W_uv (Σ p c). All heads share the
// cached rows [latent | rotary keys]. Query rows are ordered [G, tokens, group].

namespace mha2mla::runtime {
namespace {

/// Fills the rotary columns of a query row: RoPE of the head's rotary pairs in its own block, zeros in the others.
void rotate_query_rows(const AttentionInput& input, const MlaWeights& weights, const Compute& compute,
                       std::int64_t begin, std::int64_t end) {
    const AttentionShape& shape = input.shape;
    const std::int64_t dr = weights.qk_rope_head_dim;
    const auto key_heads = static_cast<std::int64_t>(weights.rope_pairs.size());
    const std::int64_t row_width = weights.kv_lora_rank + key_heads * dr;
    for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
        const std::int64_t k = key_heads == 1 ? 0 : g;
        const auto& pairs = weights.rope_pairs[static_cast<std::size_t>(k)];
        const std::int64_t first_row = (g * input.chunk.tokens + begin) * shape.group;
        float* const row = compute.workspace.query.data() + first_row * row_width + weights.kv_lora_rank;
        for (std::int64_t r = 0; r < (end - begin) * shape.group; ++r)
            std::fill_n(row + r * row_width, key_heads * dr, 0.F);
        compute.kernels.rope(
            {.x = compute.workspace.projected.data() + begin * input.projected_width + g * shape.group * shape.head_dim,
             .x_row_stride = input.projected_width,
             .x_head_stride = shape.head_dim,
             .half = shape.head_dim / 2,
             .y = row + k * dr,
             .y_row_stride = shape.group * row_width,
             .y_head_stride = row_width,
             .rows = end - begin,
             .heads = shape.group,
             .pairs = dr / 2,
             .source_pairs = pairs.data(),
             .frequencies = pairs.data(),
             .table = input.rope.data(),
             .table_pairs = input.rope.pairs(),
             .first_position = input.chunk.first_position + begin});
    }
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
    parallel_ranges(
        compute.pool, chunk.tokens, chunk.tokens * shape.heads * plane.width,
        [&](int, std::int64_t begin, std::int64_t end) { rotate_query_rows(input, weights, compute, begin, end); });
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
            .block_count = chunk.pages(),
            .keys = chunk.keys(),
            .q = workspace.query.data(),
            .visible = workspace.visible.data(),
            .out = workspace.attended.data()},
           compute);
    run_grouped_linear({.x = workspace.attended.data(),
                        .rows = chunk.tokens * shape.group,
                        .matrices = &weights.value_up,
                        .y = workspace.grouped.data(),
                        .y_stride = shape.value_dim},
                       compute);
    gather_heads(workspace.grouped.data(), input, compute);
}

}  // namespace mha2mla::runtime
