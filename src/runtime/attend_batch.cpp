#include <algorithm>

#include "cache/page_format.h"
#include "runtime/attend.h"

namespace mha2mla::runtime {
namespace {

/// The keys of several chunks, dealt out page by page in the order of the chunks: every share costs the same, so a
/// chunk may end in another share than it begins in. A page costs as many units as the chunk has tokens.
class KeyShares {
public:
    KeyShares(std::span<const Chunk> chunks, std::int64_t count) : chunks_(chunks), count_(count) {
        for (const Chunk& chunk : chunks) cost_ += cost_of(chunk);
    }

    static std::int64_t cost_of(const Chunk& chunk) { return chunk.pages() * chunk.tokens; }
    std::int64_t cost() const { return cost_; }
    std::int64_t count() const { return count_; }
    std::span<const Chunk> chunks() const { return chunks_; }

    /// The first page of a chunk that is not dealt before `share`. `cost_before`: of the chunks before this one.
    std::int64_t first_page(const Chunk& chunk, std::int64_t cost_before, std::int64_t share) const {
        const std::int64_t cost = cost_ * share / count_ - cost_before;
        return std::clamp(cost / chunk.tokens, std::int64_t{0}, chunk.pages());
    }

    /// The share in which a chunk begins.
    std::int64_t first_share(const Chunk& chunk, std::int64_t cost_before) const {
        std::int64_t share = 0;
        while (first_page(chunk, cost_before, share + 1) == 0) ++share;
        return share;
    }

    /// The number of parts of a chunk in the shares before `share`; pages may be so costly that a share has none.
    std::int64_t parts_before(const Chunk& chunk, std::int64_t cost_before, std::int64_t share) const {
        std::int64_t parts = 0;
        for (std::int64_t i = 0; i < share; ++i) {
            if (first_page(chunk, cost_before, i) < first_page(chunk, cost_before, i + 1)) ++parts;
        }
        return parts;
    }

private:
    std::span<const Chunk> chunks_;
    std::int64_t count_;
    std::int64_t cost_ = 0;
};

using JobOf = core::FunctionRef<AttendJob(const Chunk& chunk, kernels::KeyValueBlock* blocks)>;

/// The places of partial results. Those of a chunk that begins in share a follow each other from 2 a on; if it ends in
/// share b, the last is a + b at most, and the next one begins in b or later. What begins and ends in a share is
/// finished there, at the place of those that begin there.
AttendPart place(const Workspace& workspace, std::int64_t index, std::int64_t value_width, int worker) {
    const std::int64_t row = index * max_key_split_rows;
    return {.out = workspace.partial.data() + row * value_width,
            .max = workspace.row_max.data() + row,
            .sum = workspace.row_sum.data() + row,
            .positions = workspace.positions_of(worker),
            .scratch = workspace.kernel_scratch(worker)};
}

void merge_parts(const AttendJob& job, const AttendPart& first, std::int64_t parts, const Compute& compute) {
    compute.kernels.merge({.partial = first.out,
                           .max = first.max,
                           .sum = first.sum,
                           .parts = parts,
                           .rows = job.streams * job.rows,
                           .width = job.value_width,
                           .out = job.out,
                           .out_stride = job.value_width,
                           .part_rows = max_key_split_rows,
                           .log_sum = job.log_sum});
}

void attend_share(const KeyShares& shares, std::int64_t share, JobOf job_of, const Compute& compute, int worker) {
    const Workspace& workspace = compute.workspace;
    std::int64_t cost_before = 0;
    for (const Chunk& chunk : shares.chunks()) {
        const std::int64_t begin = shares.first_page(chunk, cost_before, share);
        const std::int64_t end = shares.first_page(chunk, cost_before, share + 1);
        if (begin < end) {
            const AttendJob job = job_of(chunk, workspace.blocks_of(worker));
            const std::int64_t index =
                2 * shares.first_share(chunk, cost_before) + shares.parts_before(chunk, cost_before, share);
            const AttendPart part = place(workspace, index, job.value_width, worker);
            attend_blocks(job, begin, end, part, compute);
            if (end - begin == chunk.pages()) merge_parts(job, part, 1, compute);
        }
        cost_before += KeyShares::cost_of(chunk);
    }
}

/// Chunks whose parts lie in several shares.
void merge_divided_chunks(const KeyShares& shares, JobOf job_of, const Compute& compute) {
    std::int64_t cost_before = 0;
    for (const Chunk& chunk : shares.chunks()) {
        const std::int64_t parts = shares.parts_before(chunk, cost_before, shares.count());
        if (parts > 1) {
            const AttendJob job = job_of(chunk, compute.workspace.blocks_of(0));
            const std::int64_t first = 2 * shares.first_share(chunk, cost_before);
            merge_parts(job, place(compute.workspace, first, job.value_width, 0), parts, compute);
        }
        cost_before += KeyShares::cost_of(chunk);
    }
}

void attend_few_rows(std::span<const Chunk> chunks, std::int64_t work_of_key, JobOf job_of, const Compute& compute) {
    const KeyShares shares(chunks, compute.pool.size());
    parallel_ranges(compute.pool, shares.count(), shares.cost() * cache::page_tokens * work_of_key,
                    [&](int worker, std::int64_t begin, std::int64_t end) {
                        for (std::int64_t share = begin; share < end; ++share) {
                            attend_share(shares, share, job_of, compute, worker);
                        }
                    });
    merge_divided_chunks(shares, job_of, compute);
}

}  // namespace

void attend_all(const AttentionBatch& batch, JobOf job_of, const Compute& compute) {
    const auto chunks = batch.chunks;
    const std::int64_t heads = batch.shape.heads;
    const auto has_few_rows = [&](const Chunk& chunk) { return chunk.tokens * heads <= max_key_split_rows; };
    for (std::size_t first = 0, end = 0; first < chunks.size(); first = end) {
        end = first;
        while (end < chunks.size() && has_few_rows(chunks[end])) ++end;
        if (end - first > 1) {
            attend_few_rows(chunks.subspan(first, end - first), heads * 2 * batch.shape.head_dim, job_of, compute);
        } else {
            attend(job_of(chunks[first], compute.workspace.blocks_of(0)), compute);
            end = first + 1;
        }
    }
}

}  // namespace mha2mla::runtime
