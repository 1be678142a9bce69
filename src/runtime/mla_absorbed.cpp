#include <algorithm>

#include "runtime/attend.h"
#include "runtime/attention.h"
#include "runtime/linear.h"

// Absorbed form: logits = (q~·c + q_rope·k_rope) scale with q~ = W_ukᵀ q_nope; out = W_uv (Σ p c). All heads of a
// latent group, usually all heads, share its cached rows [latent | rotary keys]. Query rows are ordered [G, tokens,
// group] in each chunk, so that those of a latent group follow each other.

namespace mha2mla::runtime {
namespace {

/// Fills the rotary columns of all query rows: RoPE of the head's rotary pairs in its own block, zeros in the others.
void rotate_rotary_queries(const AttentionBatch& batch, const MlaWeights& weights, const Compute& compute) {
    const std::int64_t dr = weights.qk_rope_head_dim;
    const std::int64_t key_heads = weights.rope_keys_of_group();
    const std::int64_t row_width = weights.row_width();
    float* const rotary = compute.workspace.query.data() + weights.head_rank();
    const std::int64_t heads = batch.shape.heads;
    parallel_rows(batch.chunks, key_heads > 1 ? heads * row_width : 0, compute,
                  [&](int, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
                      const std::int64_t first = chunk.first_row * heads;
                      for (std::int64_t r = first + begin * heads; r < first + end * heads; ++r) {
                          std::fill_n(rotary + r * row_width, key_heads * dr, 0.F);
                      }
                  });
    rotate_query(batch,
                 {.pairs = dr / 2,
                  .pairs_of_heads = &weights.rope_pairs,
                  .factors = &weights.rope_factors,
                  .out = rotary,
                  .out_stride = row_width,
                  .own_column = weights.rope_query_column,
                  .kv_heads_in_row = key_heads},
                 compute);
}

/// q~ into the latent columns of the query rows.
void absorb_queries(const AttentionBatch& batch, const MlaWeights& weights, const Compute& compute) {
    const Workspace& workspace = compute.workspace;
    const std::int64_t row_width = weights.row_width();
    if (weights.qk_nope_head_dim == 0) {  // rotary keys alone: the latent only carries values
        const std::int64_t first = batch.chunks.front().first_row * batch.shape.heads;
        const std::int64_t rows = count_tokens(batch.chunks) * batch.shape.heads;
        for (std::int64_t row = first; row < first + rows; ++row) {
            std::fill_n(workspace.query.data() + row * row_width, weights.head_rank(), 0.F);
        }
        return;
    }
    pick_unrotated_query(batch, weights, workspace.nope.data(), weights.qk_nope_head_dim, compute);
    run_grouped_linear({.x = workspace.nope.data(),
                        .chunks = batch.chunks,
                        .group = batch.shape.group,
                        .matrices = &weights.query_absorb,
                        .y = workspace.query.data(),
                        .y_stride = row_width},
                       compute);
}

/// The chunk's queries over its latents, whose pages go to `blocks`.
AttendJob job_of(const AttentionInput& input, const MlaWeights& weights, kernels::KeyValueBlock* blocks,
                 const Workspace& workspace) {
    const Chunk& chunk = input.chunk;
    const cache::PageFormat& format = chunk.cache.pool().format(input.layer);
    const cache::Plane& plane = format.planes[cache::latent_plane()];
    const std::int64_t row = input.first_head_row();
    for (int group = 0; group < static_cast<int>(weights.latent_groups); ++group) {
        const int rows = cache::latent_plane(group);
        chunk.cache.list_blocks(input.layer, rows, rows, chunk.keys(), blocks + group * chunk.pages());
    }
    return {.dtype = format.dtype,
            .streams = weights.latent_groups,
            .rows = chunk.tokens * input.shape.heads / weights.latent_groups,
            .key_width = plane.width,
            .value_width = weights.head_rank(),
            .key_stride_bytes = static_cast<std::int64_t>(plane.row_bytes),
            .value_stride_bytes = static_cast<std::int64_t>(plane.row_bytes),
            .scale = input.shape.softmax_scale,
            .blocks = blocks,
            .sealed = format.sealed_format(cache::latent_plane(), cache::latent_plane()),
            .block_count = chunk.pages(),
            .keys = chunk.keys(),
            .q = workspace.query.data() + row * plane.width,
            .visible = workspace.visible.data() + row,
            .first_key = chunk.cache.pool().sink_tokens(),
            .positions = input.positions,
            .position_q = workspace.position_query.data() + row * input.shape.head_dim,
            .out = workspace.attended.data() + row * weights.head_rank(),
            .log_sum = workspace.part_max.data() + row};
}

}  // namespace

void attend_absorbed(const AttentionBatch& batch, const MlaWeights& weights, const Compute& compute) {
    const Workspace& workspace = compute.workspace;
    rotate_rotary_queries(batch, weights, compute);
    absorb_queries(batch, weights, compute);
    attend_all(
        batch,
        [&](const Chunk& chunk, kernels::KeyValueBlock* blocks) {
            return job_of(batch.of(chunk), weights, blocks, workspace);
        },
        compute);
    run_grouped_linear({.x = workspace.attended.data(),
                        .chunks = batch.chunks,
                        .group = batch.shape.group,
                        .matrices = &weights.value_up,
                        .y = workspace.grouped.data(),
                        .y_stride = batch.shape.value_dim},
                       compute);
}

}  // namespace mha2mla::runtime
