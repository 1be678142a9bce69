#include <algorithm>

#include "runtime/attend.h"
#include "runtime/attention.h"

// Expanded form: k_nope = W_uk c and v = W_uv c are rebuilt for every cached token, one KV head at a time, so that only
// one head's keys and values exist. Keys are [k_nope | k_rope].

namespace mha2mla::runtime {
namespace {

/// What the rebuilding of one KV head reads and writes.
struct HeadRebuild {
    const AttentionInput& input;
    const MlaWeights& weights;
    std::size_t kv_head;
    core::DType dtype;
    std::int64_t key_width;
    std::byte* keys;    // [keys, key_width]
    std::byte* values;  // [keys, dv]

    /// Of the head's latent group.
    int plane() const {
        const auto heads_of_group = weights.value_up.size() / static_cast<std::size_t>(weights.latent_groups);
        return cache::latent_plane(static_cast<int>(kv_head / heads_of_group));
    }
    /// Where the head's rotary key starts in a cached row.
    std::int64_t rotary_column() const {
        const auto heads_in_row = static_cast<std::size_t>(weights.rope_keys_of_group());
        return weights.head_rank() + static_cast<std::int64_t>(kv_head % heads_in_row) * weights.qk_rope_head_dim;
    }
};

struct RebuiltRows {
    const Matrix& up;
    const float* latents;  // [tokens, R / L]
    std::int64_t latent_stride;
    std::int64_t tokens;
    std::byte* out;
    std::int64_t out_width;  // elements between two rows
};

/// out = up latents, in the cache's type.
void rebuild_rows(const RebuiltRows& rows, core::DType dtype, const Compute& compute, int worker) {
    float* const rebuilt = compute.workspace.rebuilt_rows(worker);
    const std::int64_t width = rows.up.outputs();
    compute.kernels.linear({.x = rows.latents,
                            .x_stride = rows.latent_stride,
                            .rows = rows.tokens,
                            .weight = rows.up.packed(),
                            .y = rebuilt,
                            .y_stride = width,
                            .tiles = rows.up.packed().tiles(),
                            .scratch = compute.workspace.kernel_scratch(worker)});
    compute.kernels.store_rows({.x = rebuilt,
                                .x_stride = width,
                                .rows = rows.tokens,
                                .width = width,
                                .dtype = dtype,
                                .y = rows.out,
                                .y_stride_bytes = rows.out_width * static_cast<std::int64_t>(core::size_of(dtype))});
}

/// Cached rows [latent | rotary keys] of a page as floats.
struct CachedRows {
    const float* data;
    std::int64_t stride;
    std::int64_t tokens;
};

CachedRows load_page(const HeadRebuild& head, std::int64_t page, const Compute& compute, int worker) {
    const cache::PageFormat& format = head.input.chunk.cache.pool().format(head.input.layer);
    const int plane = head.plane();
    const kernels::KeyValueBlock& block = compute.workspace.blocks[static_cast<std::size_t>(page)];
    const auto parts = block.sealed ? format.sealed_format(plane, plane) : format.exact_format(plane, plane);
    const std::int64_t stride = head.weights.row_width() + kernels::group_unit;
    float* const rows = compute.workspace.latent_rows(worker);
    compute.kernels.load_rows({.block = block.keys,
                               .parts = {parts.keys[0], parts.keys[1]},
                               .rows = block.tokens,
                               .y = rows,
                               .y_stride = stride});
    return {rows, stride, block.tokens};
}

/// Keys and values of the tokens of one page.
void rebuild_page(const HeadRebuild& head, std::int64_t page, const Compute& compute, int worker) {
    const MlaWeights& weights = head.weights;
    const CachedRows cached = load_page(head, page, compute, worker);
    const std::int64_t first = page * cache::page_tokens;
    const auto element = static_cast<std::int64_t>(core::size_of(head.dtype));
    const std::int64_t dr = weights.qk_rope_head_dim;
    std::byte* const keys = head.keys + first * head.key_width * element;
    compute.kernels.store_rows({.x = cached.data + head.rotary_column(),
                                .x_stride = cached.stride,
                                .rows = cached.tokens,
                                .width = dr,
                                .dtype = head.dtype,
                                .y = keys + weights.qk_nope_head_dim * element,
                                .y_stride_bytes = head.key_width * element});
    const RebuiltRows value_rows{.up = weights.value_up[head.kv_head],
                                 .latents = cached.data,
                                 .latent_stride = cached.stride,
                                 .tokens = cached.tokens,
                                 .out = head.values + first * weights.value_up[head.kv_head].outputs() * element,
                                 .out_width = weights.value_up[head.kv_head].outputs()};
    rebuild_rows(value_rows, head.dtype, compute, worker);
    if (weights.key_up.empty()) return;
    const RebuiltRows key_rows{.up = weights.key_up[head.kv_head],
                               .latents = cached.data,
                               .latent_stride = cached.stride,
                               .tokens = cached.tokens,
                               .out = keys,
                               .out_width = head.key_width};
    rebuild_rows(key_rows, head.dtype, compute, worker);
}

void list_blocks(const HeadRebuild& head, kernels::KeyValueBlock* blocks) {
    const auto element = static_cast<std::int64_t>(core::size_of(head.dtype));
    const std::int64_t keys = head.input.chunk.keys();
    for (std::int64_t first = 0; first < keys; first += cache::page_tokens) {
        *blocks++ = {.keys = head.keys + first * head.key_width * element,
                     .values = head.values + first * head.input.shape.value_dim * element,
                     .tokens = std::min(cache::page_tokens, keys - first)};
    }
}

void attend_head(const HeadRebuild& head, const Compute& compute) {
    const AttentionInput& input = head.input;
    const Chunk& chunk = input.chunk;
    const Workspace& workspace = compute.workspace;
    const std::int64_t dv = input.shape.value_dim;
    // What is to be rebuilt; then what was rebuilt takes its place.
    chunk.cache.list_blocks(input.layer, head.plane(), head.plane(), chunk.keys(), workspace.blocks.data());
    const std::int64_t rebuilding = chunk.keys() * head.weights.head_rank() * (head.weights.qk_nope_head_dim + dv);
    parallel_ranges(compute.pool, chunk.pages(), rebuilding, [&](int worker, std::int64_t begin, std::int64_t end) {
        for (std::int64_t page = begin; page < end; ++page) rebuild_page(head, page, compute, worker);
    });
    list_blocks(head, workspace.blocks.data());
    const std::int64_t rows = chunk.tokens * input.shape.group;
    const auto element = static_cast<std::int64_t>(core::size_of(head.dtype));
    const std::int64_t row = input.first_head_row() + static_cast<std::int64_t>(head.kv_head) * rows;
    attend({.dtype = head.dtype,
            .streams = 1,
            .rows = rows,
            .key_width = head.key_width,
            .value_width = dv,
            .key_stride_bytes = head.key_width * element,
            .value_stride_bytes = dv * element,
            .scale = input.shape.softmax_scale,
            .blocks = workspace.blocks.data(),
            .block_count = chunk.pages(),
            .keys = chunk.keys(),
            .q = workspace.query.data() + row * head.key_width,
            .visible = workspace.visible.data() + input.first_head_row(),
            .first_key = chunk.cache.pool().sink_tokens(),
            .positions = input.positions,
            .position_q = workspace.position_query.data() + row * input.shape.head_dim,
            .out = workspace.grouped.data() + row * dv,
            .log_sum = workspace.part_max.data() + row},
           compute);
}

void attend_chunk(const AttentionInput& input, const MlaWeights& weights, const Compute& compute) {
    const cache::PageFormat& format = input.chunk.cache.pool().format(input.layer);
    for (std::size_t g = 0; g < weights.value_up.size(); ++g) {
        attend_head({.input = input,
                     .weights = weights,
                     .kv_head = g,
                     .dtype = format.dtype,
                     .key_width = weights.qk_nope_head_dim + weights.qk_rope_head_dim,
                     .keys = compute.workspace.expanded_keys.data(),
                     .values = compute.workspace.expanded_values.data()},
                    compute);
    }
}

}  // namespace

void attend_expanded(const AttentionBatch& batch, const MlaWeights& weights, const Compute& compute) {
    const Workspace& workspace = compute.workspace;
    const std::int64_t key_width = weights.qk_nope_head_dim + weights.qk_rope_head_dim;
    pick_unrotated_query(batch, weights, workspace.query.data(), key_width, compute);
    rotate_query(batch,
                 {.pairs = weights.qk_rope_head_dim / 2,
                  .pairs_of_heads = &weights.rope_pairs,
                  .factors = &weights.rope_factors,
                  .out = workspace.query.data() + weights.qk_nope_head_dim,
                  .out_stride = key_width,
                  .own_column = weights.rope_query_column},
                 compute);
    for (const Chunk& chunk : batch.chunks) attend_chunk(batch.of(chunk), weights, compute);
}

}  // namespace mha2mla::runtime
