#include <algorithm>

#include "runtime/attention.h"
#include "runtime/linear.h"

// The first tokens of a sequence keep full keys and values. For attention they are a range of keys of its own beside
// the latents, with other queries and other rows, but under one softmax.

namespace mha2mla::runtime {
namespace {

/// Rotates the keys among the projected [tokens, 2 G d] where they lie.
void rotate_keys(const AttentionInput& input, std::int64_t tokens, const Compute& compute) {
    const AttentionShape& shape = input.shape;
    const std::int64_t row_width = 2 * shape.kv_heads * shape.head_dim;
    float* const keys = compute.workspace.sink_projected.data();
    compute.kernels.rope({.x = keys,
                          .x_row_stride = row_width,
                          .x_head_stride = shape.head_dim,
                          .half = shape.head_dim / 2,
                          .y = keys,
                          .y_row_stride = row_width,
                          .y_head_stride = shape.head_dim,
                          .rows = tokens,
                          .heads = shape.kv_heads,
                          .pairs = shape.head_dim / 2,
                          .table = input.rope.data(),
                          .table_pairs = input.rope.pairs(),
                          .first_position = input.chunk.first_position});
}

void store_keys_and_values(const AttentionInput& input, std::int64_t tokens, const Compute& compute) {
    const Chunk& chunk = input.chunk;
    const std::int64_t d = input.shape.head_dim;
    const std::int64_t values = input.shape.kv_heads * d;  // the column where they start
    const core::DType dtype = chunk.cache.pool().format(input.layer).dtype;
    const auto store = [&](int plane, std::int64_t column) {
        compute.kernels.store_rows({.x = compute.workspace.sink_projected.data() + column,
                                    .x_stride = 2 * values,
                                    .rows = tokens,
                                    .width = d,
                                    .dtype = dtype,
                                    .y = chunk.cache.sink_row(input.layer, plane, chunk.first_position),
                                    .y_stride_bytes = d * static_cast<std::int64_t>(core::size_of(dtype))});
    };
    for (int g = 0; g < static_cast<int>(input.shape.kv_heads); ++g) {
        store(cache::key_plane(g), g * d);
        store(cache::value_plane(g), values + g * d);
    }
}

/// Query rows that see the same sinks: those of one KV head in some tokens of a chunk.
struct SinkRows {
    int kv_head;
    std::int64_t first_row;  // of the rows of all chunks
    std::int64_t rows;
    std::int64_t part_rows;  // of all chunks: from the part of the latents to that of the sinks
};

/// What the sinks alone give, unnormalized, as the second part of Workspace::grouped.
void attend_rows(const AttentionInput& input, const SinkRows& rows, const Compute& compute, int worker) {
    const AttentionShape& shape = input.shape;
    const cache::SequenceCache& cache = input.chunk.cache;
    const Workspace& workspace = compute.workspace;
    const core::DType dtype = cache.pool().format(input.layer).dtype;
    const auto row_bytes = shape.head_dim * static_cast<std::int64_t>(core::size_of(dtype));
    const std::int64_t sinks = cache.pool().sink_tokens();
    const kernels::KeyValueBlock block{.keys = cache.sink_row(input.layer, cache::key_plane(rows.kv_head), 0),
                                       .values = cache.sink_row(input.layer, cache::value_plane(rows.kv_head), 0),
                                       .tokens = sinks};
    const std::int64_t part_row = rows.part_rows + rows.first_row;
    compute.kernels.attention({.dtype = dtype,
                               .q = workspace.sink_query.data() + rows.first_row * shape.head_dim,
                               .q_stride = shape.head_dim,
                               .rows = rows.rows,
                               .key_width = shape.head_dim,
                               .value_width = shape.value_dim,
                               .key_stride_bytes = row_bytes,
                               .value_stride_bytes = row_bytes,
                               .scale = shape.softmax_scale,
                               .blocks = &block,
                               .block_tokens = sinks,
                               .end_key = sinks,
                               .visible = workspace.visible.data() + rows.first_row,
                               .out = workspace.grouped.data() + part_row * shape.value_dim,
                               .out_stride = shape.value_dim,
                               .max = workspace.part_max.data() + part_row,
                               .sum = workspace.part_sum.data() + part_row,
                               .scratch = workspace.kernel_scratch(worker)});
}

/// Joins the two parts of the rows in place. That of the latents is normalized: its sum is 1 at the log of its sum.
void merge_rows(const AttentionInput& input, const SinkRows& rows, const Compute& compute) {
    const Workspace& workspace = compute.workspace;
    const std::int64_t width = input.shape.value_dim;
    std::fill_n(workspace.part_sum.data() + rows.first_row, rows.rows, 1.F);
    float* const out = workspace.grouped.data() + rows.first_row * width;
    compute.kernels.merge({.partial = out,
                           .max = workspace.part_max.data() + rows.first_row,
                           .sum = workspace.part_sum.data() + rows.first_row,
                           .parts = 2,
                           .rows = rows.rows,
                           .width = width,
                           .out = out,
                           .out_stride = width,
                           .part_rows = rows.part_rows});
}

}  // namespace

void store_sinks(const AttentionInput& input, const MlaWeights& weights, const Compute& compute) {
    const Chunk& chunk = input.chunk;
    const std::int64_t tokens = std::min(chunk.cache.pool().sink_tokens() - chunk.first_position, chunk.tokens);
    if (tokens <= 0) return;
    const std::int64_t hidden = weights.sink_in.weight.inputs();
    run_linear({.x = compute.workspace.normed.data() + chunk.first_row * hidden,
                .rows = tokens,
                .linear = &weights.sink_in,
                .y = compute.workspace.sink_projected.data()},
               compute);
    rotate_keys(input, tokens, compute);
    store_keys_and_values(input, tokens, compute);
}

void attend_sinks(const AttentionBatch& batch, const Compute& compute) {
    const AttentionShape& shape = batch.shape;
    rotate_query(
        batch, {.pairs = shape.head_dim / 2, .out = compute.workspace.sink_query.data(), .out_stride = shape.head_dim},
        compute);
    const std::int64_t sinks = batch.chunks.front().cache.pool().sink_tokens();
    const std::int64_t part_rows = count_tokens(batch.chunks) * shape.heads;
    parallel_rows(batch.chunks, shape.heads * sinks * 2 * shape.head_dim, compute,
                  [&](int worker, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
                      const AttentionInput input = batch.of(chunk);
                      for (int g = 0; g < static_cast<int>(shape.kv_heads); ++g) {
                          const SinkRows rows{
                              .kv_head = g,
                              .first_row = input.first_head_row() + (g * chunk.tokens + begin) * shape.group,
                              .rows = (end - begin) * shape.group,
                              .part_rows = part_rows};
                          attend_rows(input, rows, compute, worker);
                          merge_rows(input, rows, compute);
                      }
                  });
}

}  // namespace mha2mla::runtime
