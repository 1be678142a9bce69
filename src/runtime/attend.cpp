#include "runtime/attend.h"

#include <algorithm>
#include <atomic>

#include "cache/page_format.h"

namespace mha2mla::runtime {
namespace {

/// Rows [first_row, first_row + rows) of a stream: everything but the key range and where results go.
kernels::AttentionParams row_params(const AttendJob& job, std::int64_t stream, std::int64_t first_row,
                                    std::int64_t rows) {
    return {.dtype = job.dtype,
            .q = job.q + (stream * job.rows + first_row) * job.key_width,
            .q_stride = job.key_width,
            .rows = rows,
            .key_width = job.key_width,
            .value_width = job.value_width,
            .key_stride_bytes = job.key_stride_bytes,
            .value_stride_bytes = job.value_stride_bytes,
            .scale = job.scale,
            .blocks = job.blocks + stream * job.block_count,
            .block_tokens = cache::page_tokens,
            .sealed = job.sealed,
            .visible = job.visible + first_row,
            .out_stride = job.value_width};
}

/// Query rows and blocks of positions, and where their logits go.
struct PositionProducts {
    const float* query;  // [rows, d]
    std::int64_t rows;
    std::int64_t first_block;
    std::int64_t blocks;
    float* logits;  // [blocks, rows, position_block_tokens]
};

/// Queries are turned to each block, projected and multiplied with the basis.
void find_position_logits(const PositionTable& table, const PositionProducts& products, const AttendPart& part,
                          const Compute& compute) {
    const PositionBuffers& buffers = part.positions;
    const std::int64_t rows = products.rows, turned_rows = products.blocks * rows;
    for (std::int64_t i = 0; i < products.blocks; ++i) {
        compute.kernels.turn(table.turn_to(products.first_block + i, products.query, rows,
                                           buffers.turned_query + i * rows * table.width()));
    }
    compute.kernels.linear({.x = buffers.turned_query,
                            .x_stride = table.width(),
                            .rows = turned_rows,
                            .weight = table.projection(),
                            .y = buffers.projected_query,
                            .y_stride = table.rank(),
                            .tiles = table.projection().tiles(),
                            .scratch = part.scratch});
    compute.kernels.linear({.x = buffers.projected_query,
                            .x_stride = table.rank(),
                            .rows = turned_rows,
                            .weight = table.basis(),
                            .y = products.logits,
                            .y_stride = position_block_tokens,
                            .tiles = table.basis().tiles(),
                            .scratch = part.scratch});
}

/// Attention of rows, the first of which is row `row` of all streams, over the keys of `params`. Where there is a
/// positional part, so many keys at a time that their positional logits stay in a near cache.
void attend_keys(const AttendJob& job, std::int64_t row, const AttendPart& part, const Compute& compute,
                 kernels::AttentionParams params) {
    params.out = part.out;
    params.max = part.max;
    params.sum = part.sum;
    params.scratch = part.scratch;
    if (job.positions == nullptr || params.first_key >= params.end_key) return compute.kernels.attention(params);
    const PositionTable& table = *job.positions;
    params.logit_bias = part.positions.logits;
    params.logit_bias_block_tokens = position_block_tokens;
    params.logit_bias_block_stride = params.rows * position_block_tokens;
    params.logit_bias_stride = position_block_tokens;
    const std::int64_t most_blocks = std::max<std::int64_t>(1, max_position_rows / params.rows);
    const std::int64_t blocks_at_once = std::max<std::int64_t>(1, max_key_split_rows / params.rows);
    const std::int64_t end_key = params.end_key;
    while (params.first_key < end_key) {
        const std::int64_t first = params.first_key / position_block_tokens;
        params.end_key = std::min((first + most_blocks) * position_block_tokens, end_key);
        const std::int64_t end = (params.end_key + position_block_tokens - 1) / position_block_tokens;
        for (std::int64_t block = first; block < end; block += blocks_at_once) {
            find_position_logits(table,
                                 {.query = job.position_q + row * table.width(),
                                  .rows = params.rows,
                                  .first_block = block,
                                  .blocks = std::min(blocks_at_once, end - block),
                                  .logits = part.positions.logits + (block - first) * params.logit_bias_block_stride},
                                 part, compute);
        }
        params.logit_bias_first_block = first;
        compute.kernels.attention(params);
        params.continues = true;
        params.first_key = params.end_key;
    }
}

void split_over_keys(const AttendJob& job, const Compute& compute) {
    const Workspace& workspace = compute.workspace;
    const std::int64_t rows = job.streams * job.rows;
    const std::int64_t width = job.key_width + job.value_width + (job.positions == nullptr ? 0 : job.positions->rank());
    const std::int64_t work = rows * job.keys * width;
    std::atomic<std::int64_t> parts{0};
    parallel_ranges(compute.pool, job.block_count, work, [&](int worker, std::int64_t begin, std::int64_t end) {
        // Parts are numbered in key order, so that merging does not depend on who is first. With fewer blocks than
        // workers some workers have none, and the others have one each.
        const std::int64_t part = std::min<std::int64_t>(begin, worker);
        parts.fetch_add(1, std::memory_order_relaxed);
        attend_blocks(job, begin, end,
                      {.out = workspace.partial.data() + part * rows * job.value_width,
                       .max = workspace.row_max.data() + part * rows,
                       .sum = workspace.row_sum.data() + part * rows,
                       .positions = workspace.positions_of(worker),
                       .scratch = workspace.kernel_scratch(worker)},
                      compute);
    });
    compute.kernels.merge({.partial = workspace.partial.data(),
                           .max = workspace.row_max.data(),
                           .sum = workspace.row_sum.data(),
                           .parts = parts.load(),
                           .rows = rows,
                           .width = job.value_width,
                           .out = job.out,
                           .out_stride = job.value_width,
                           .log_sum = job.log_sum});
}

/// One block of rows of one stream over all keys that it sees, normalized in place.
void attend_rows(const AttendJob& job, std::int64_t stream, std::int64_t first_row, const Compute& compute,
                 int worker) {
    const Workspace& workspace = compute.workspace;
    const std::int64_t rows = std::min(attention_task_rows, job.rows - first_row);
    const std::int64_t row = stream * job.rows + first_row;
    auto params = row_params(job, stream, first_row, rows);
    params.first_key = job.first_key;
    params.end_key = *std::max_element(params.visible, params.visible + rows);
    const AttendPart part{.out = job.out + row * job.value_width,
                          .max = workspace.row_max.data() + row,
                          .sum = workspace.row_sum.data() + row,
                          .positions = workspace.positions_of(worker),
                          .scratch = workspace.kernel_scratch(worker)};
    attend_keys(job, row, part, compute, params);
    compute.kernels.merge({.partial = part.out,
                           .max = part.max,
                           .sum = part.sum,
                           .parts = 1,
                           .rows = rows,
                           .width = job.value_width,
                           .out = part.out,
                           .out_stride = job.value_width,
                           .log_sum = job.log_sum == nullptr ? nullptr : job.log_sum + row});
}

/// Late rows see more keys than early ones, so workers take the next block as they finish one, the longest first.
void split_over_rows(const AttendJob& job, const Compute& compute) {
    const std::int64_t row_blocks = (job.rows + attention_task_rows - 1) / attention_task_rows;
    std::atomic<std::int64_t> next{0};
    compute.pool.run([&](int worker) {
        for (std::int64_t task = next++; task < job.streams * row_blocks; task = next++) {
            const std::int64_t block = row_blocks - 1 - task / job.streams;
            attend_rows(job, task % job.streams, block * attention_task_rows, compute, worker);
        }
    });
}

}  // namespace

void attend_blocks(const AttendJob& job, std::int64_t begin, std::int64_t end, const AttendPart& part,
                   const Compute& compute) {
    for (std::int64_t stream = 0; stream < job.streams; ++stream) {
        const std::int64_t row = stream * job.rows;
        auto params = row_params(job, stream, 0, job.rows);
        params.first_key = std::max(begin * cache::page_tokens, job.first_key);
        params.end_key = std::min(end * cache::page_tokens, job.keys);
        AttendPart of_stream = part;
        of_stream.out += row * job.value_width;
        of_stream.max += row;
        of_stream.sum += row;
        attend_keys(job, row, of_stream, compute, params);
    }
}

void attend(const AttendJob& job, const Compute& compute) {
    if (job.streams * job.rows <= max_key_split_rows) {
        split_over_keys(job, compute);
    } else {
        split_over_rows(job, compute);
    }
}

}  // namespace mha2mla::runtime
