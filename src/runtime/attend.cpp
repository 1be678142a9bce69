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

/// Query rows whose positional logits are wanted.
struct PositionRows {
    const PositionTable& table;
    const float* query;  // [rows, d]
    std::int64_t rows;
    PositionBuffers buffers;
    void* scratch;
};

/// The queries turned to blocks of positions [first_block, end_block), then projected: [blocks, rows, r].
void project_queries(const PositionRows& rows, std::int64_t first_block, std::int64_t end_block,
                     const Compute& compute) {
    const PositionTable& table = rows.table;
    float* turned = rows.buffers.turned_query;
    for (std::int64_t block = first_block; block < end_block; ++block) {
        compute.kernels.turn(table.turn_to(block, rows.query, rows.rows, turned));
        turned += rows.rows * table.width();
    }
    compute.kernels.linear({.x = rows.buffers.turned_query,
                            .x_stride = table.width(),
                            .rows = (end_block - first_block) * rows.rows,
                            .weight = table.projection(),
                            .y = rows.buffers.projected_query,
                            .y_stride = table.rank(),
                            .tiles = table.projection().tiles(),
                            .scratch = rows.scratch});
}

/// The logits of a page, [rows, page_tokens], where queries were projected for blocks from `first_block` on.
void multiply_page(const PositionRows& rows, std::int64_t page, std::int64_t first_block, const Compute& compute) {
    const kernels::PackedMatrix& basis = rows.table.basis(page);
    const std::int64_t row = (page / position_block_pages - first_block) * rows.rows;
    compute.kernels.linear({.x = rows.buffers.projected_query + row * rows.table.rank(),
                            .x_stride = rows.table.rank(),
                            .rows = rows.rows,
                            .weight = basis,
                            .y = rows.buffers.logits + page * rows.rows * cache::page_tokens,
                            .y_stride = cache::page_tokens,
                            .tiles = basis.tiles(),
                            .scratch = rows.scratch});
}

/// Finds the positional logits of the rows of `params`, from row `row` of all streams on, some blocks of positions at a
/// time, and hands them to the kernel.
void add_position_logits(const AttendJob& job, std::int64_t row, const PositionBuffers& buffers, const Compute& compute,
                         kernels::AttentionParams& params) {
    if (job.positions == nullptr) return;
    params.logit_bias = buffers.logits;
    params.logit_bias_stride = cache::page_tokens;
    params.logit_bias_block_stride = params.rows * cache::page_tokens;
    const PositionRows rows{.table = *job.positions,
                            .query = job.position_q + row * job.positions->width(),
                            .rows = params.rows,
                            .buffers = buffers,
                            .scratch = params.scratch};
    const std::int64_t blocks_at_once = std::max<std::int64_t>(1, max_key_split_rows / params.rows);
    const std::int64_t end_page = (params.end_key + cache::page_tokens - 1) / cache::page_tokens;
    std::int64_t page = params.first_key / cache::page_tokens;
    while (page < end_page) {
        const std::int64_t first_block = page / position_block_pages;
        const std::int64_t end = std::min((first_block + blocks_at_once) * position_block_pages, end_page);
        project_queries(rows, first_block, (end - 1) / position_block_pages + 1, compute);
        for (; page < end; ++page) multiply_page(rows, page, first_block, compute);
    }
}

void split_over_keys(const AttendJob& job, const Compute& compute) {
    const Workspace& workspace = compute.workspace;
    const std::int64_t rows = job.streams * job.rows;
    const std::int64_t width =
        job.key_width + job.value_width + (job.positions == nullptr ? 0 : job.positions->width());
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
    params.out = job.out + row * job.value_width;
    params.max = workspace.row_max.data() + row;
    params.sum = workspace.row_sum.data() + row;
    params.scratch = workspace.kernel_scratch(worker);
    add_position_logits(job, row, workspace.positions_of(worker), compute, params);
    compute.kernels.attention(params);
    compute.kernels.merge({.partial = params.out,
                           .max = params.max,
                           .sum = params.sum,
                           .parts = 1,
                           .rows = rows,
                           .width = job.value_width,
                           .out = params.out,
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
        params.out = part.out + row * job.value_width;
        params.max = part.max + row;
        params.sum = part.sum + row;
        params.scratch = part.scratch;
        PositionBuffers positions = part.positions;
        positions.logits += row * compute.workspace.position_logits_of_a_row();
        add_position_logits(job, row, positions, compute, params);
        compute.kernels.attention(params);
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
