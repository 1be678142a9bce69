#include "runtime/attend.h"
#include "runtime/attention.h"

namespace mha2mla::runtime {
namespace {

/// Columns of Workspace::projected: q [H d], k [G d], v [G d].
struct Columns {
    std::int64_t key;
    std::int64_t value;
};

Columns columns_of(const AttentionShape& shape) {
    const std::int64_t key = shape.heads * shape.head_dim;
    return {.key = key, .value = key + shape.kv_heads * shape.head_dim};
}

/// Rotation of tokens from `begin` on, in place unless y is changed.
kernels::RopeParams rotation(const AttentionInput& input, const Compute& compute, std::int64_t begin,
                             std::int64_t end) {
    float* const row = compute.workspace.projected.data() + input.projected_offset() + begin * input.projected_width;
    const std::int64_t d = input.shape.head_dim;
    return {.x = row,
            .x_row_stride = input.projected_width,
            .x_head_stride = d,
            .half = d / 2,
            .y = row,
            .y_row_stride = input.projected_width,
            .y_head_stride = d,
            .rows = end - begin,
            .pairs = d / 2,
            .table = input.rope.data(),
            .table_pairs = input.rope.pairs(),
            .first_position = input.chunk.first_position + begin};
}

void rotate_keys(const AttentionInput& input, const Compute& compute, std::int64_t begin, std::int64_t end) {
    auto params = rotation(input, compute, begin, end);
    params.x += columns_of(input.shape).key;
    params.y += columns_of(input.shape).key;
    params.heads = input.shape.kv_heads;
    compute.kernels.rope(params);
}

/// Rotated queries in the order of attention: [G, tokens, group, d].
void rotate_queries(const AttentionInput& input, const Compute& compute, std::int64_t begin, std::int64_t end) {
    const AttentionShape& shape = input.shape;
    const std::int64_t group_width = shape.group * shape.head_dim;
    auto params = rotation(input, compute, begin, end);
    params.heads = shape.group;
    params.y_row_stride = group_width;
    float* const query = compute.workspace.query.data() + input.first_head_row() * shape.head_dim;
    for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
        params.y = query + (g * input.chunk.tokens + begin) * group_width;
        compute.kernels.rope(params);
        params.x += group_width;
    }
}

void store_keys_and_values(const AttentionInput& input, const Compute& compute, std::int64_t begin, std::int64_t end) {
    const Columns columns = columns_of(input.shape);
    for (int g = 0; g < input.shape.kv_heads; ++g) {
        const float* const head =
            compute.workspace.projected.data() + input.projected_offset() + g * input.shape.head_dim;
        CacheRows rows{.x = head + columns.key,
                       .x_stride = input.projected_width,
                       .plane = cache::key_plane(g),
                       .columns = input.shape.head_dim,
                       .begin = begin,
                       .end = end};
        store_cache_rows(input, rows, compute.kernels);
        rows.x = head + columns.value;
        rows.plane = cache::value_plane(g);
        store_cache_rows(input, rows, compute.kernels);
    }
}

void list_blocks(const AttentionInput& input, kernels::KeyValueBlock* blocks) {
    const Chunk& chunk = input.chunk;
    for (int g = 0; g < input.shape.kv_heads; ++g) {
        chunk.cache.list_blocks(input.layer, cache::key_plane(g), cache::value_plane(g), chunk.keys(),
                                blocks + g * chunk.pages());
    }
}

/// The chunk's queries over its keys, whose pages go to `blocks`.
AttendJob job_of(const AttentionInput& input, kernels::KeyValueBlock* blocks, const Workspace& workspace) {
    const AttentionShape& shape = input.shape;
    const Chunk& chunk = input.chunk;
    const cache::PageFormat& format = chunk.cache.pool().format(input.layer);
    const auto row_bytes = static_cast<std::int64_t>(format.planes[0].row_bytes);
    list_blocks(input, blocks);
    return {.dtype = format.dtype,
            .streams = shape.kv_heads,
            .rows = chunk.tokens * shape.group,
            .key_width = shape.head_dim,
            .value_width = shape.head_dim,
            .key_stride_bytes = row_bytes,
            .value_stride_bytes = row_bytes,
            .scale = shape.softmax_scale,
            .blocks = blocks,
            .sealed = format.sealed_format(cache::key_plane(0), cache::value_plane(0)),
            .block_count = chunk.pages(),
            .keys = chunk.keys(),
            .q = workspace.query.data() + input.first_head_row() * shape.head_dim,
            .visible = workspace.visible.data() + input.first_head_row(),
            .out = workspace.attended.data() + input.first_head_row() * shape.head_dim};
}

}  // namespace

void gqa_attention(const AttentionBatch& batch, const Compute& compute) {
    parallel_rows(batch.chunks, batch.projected_width, compute,
                  [&](int, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
                      const AttentionInput input = batch.of(chunk);
                      rotate_keys(input, compute, begin, end);
                      rotate_queries(input, compute, begin, end);
                      store_keys_and_values(input, compute, begin, end);
                  });
    attend_all(
        batch,
        [&](const Chunk& chunk, kernels::KeyValueBlock* blocks) {
            return job_of(batch.of(chunk), blocks, compute.workspace);
        },
        compute);
    seal_full_pages(batch, compute);
    gather_heads(compute.workspace.attended.data(), batch, compute);
}

}  // namespace mha2mla::runtime
