#pragma once

#include <cstdint>
#include <span>

#include "cache/sequence_cache.h"
#include "checkpoint/model_config.h"
#include "runtime/compute.h"
#include "runtime/position_table.h"
#include "runtime/rope_table.h"

namespace mha2mla::runtime {

/// Tokens of one sequence that pass through the layers together, alone or in a batch of chunks of several sequences.
/// Their rows in the cache are reserved.
struct Chunk {
    cache::SequenceCache& cache;
    std::int64_t first_position = 0;
    std::int64_t tokens = 0;
    std::int64_t first_row = 0;  // of the batch: row t of the chunk is row first_row + t of the workspace's buffers
    const int* token_ids = nullptr;

    /// Cached tokens once the chunk is stored.
    std::int64_t keys() const { return first_position + tokens; }
    std::int64_t pages() const { return (keys() + cache::page_tokens - 1) / cache::page_tokens; }
};

std::int64_t count_tokens(std::span<const Chunk> chunks);

/// Splits the rows of all chunks evenly over the workers; a task gets rows [begin, end) of one chunk. `work_of_row` as
/// in parallel_ranges.
void parallel_rows(std::span<const Chunk> chunks, std::int64_t work_of_row, const Compute& compute,
                   core::FunctionRef<void(int worker, const Chunk& chunk, std::int64_t begin, std::int64_t end)> task);

/// The sizes that attention needs at every layer.
struct AttentionShape {
    explicit AttentionShape(const checkpoint::ModelConfig& config);

    std::int64_t heads;      // H
    std::int64_t kv_heads;   // G
    std::int64_t group;      // H / G
    std::int64_t head_dim;   // d
    std::int64_t value_dim;  // dv
    float softmax_scale;
};

/// What the attention of one layer reads beside its weights, of one chunk. Its input is Workspace::projected, its
/// output Workspace::heads. Between the two, buffers with a row for each query head hold the chunks one after the
/// other, each ordered [G, tokens, group].
struct AttentionInput {
    const AttentionShape& shape;
    const RopeTable& rope;
    const PositionTable* positions;  // null: no positional part
    const Chunk& chunk;
    int layer = 0;
    std::int64_t projected_width = 0;

    /// Where the chunk starts in Workspace::projected.
    std::int64_t projected_offset() const { return chunk.first_row * projected_width; }
    /// The first of its rows in a buffer with a row for each query head.
    std::int64_t first_head_row() const { return chunk.first_row * shape.heads; }
};

/// The same of all chunks of a batch, whose rows follow each other.
struct AttentionBatch {
    const AttentionShape& shape;
    const RopeTable& rope;
    const PositionTable* positions;
    std::span<const Chunk> chunks;
    int layer = 0;
    std::int64_t projected_width = 0;

    AttentionInput of(const Chunk& chunk) const { return {shape, rope, positions, chunk, layer, projected_width}; }
    AttentionBatch only(std::span<const Chunk> some) const {
        return {shape, rope, positions, some, layer, projected_width};
    }
};

/// Rows [begin, end) of a chunk on their way to some columns of a plane of the cache.
struct CacheRows {
    const float* x = nullptr;  // row 0 of the chunk
    std::int64_t x_stride = 0;
    int plane = 0;
    std::int64_t first_column = 0;
    std::int64_t columns = 0;
    std::int64_t begin = 0;
    std::int64_t end = 0;
};

void store_cache_rows(const AttentionInput& input, const CacheRows& rows, const kernels::KernelSet& kernels);

/// Seals the pages that the chunks fill, once all their queries have attended to them exactly.
void seal_full_pages(const AttentionBatch& batch, const Compute& compute);

/// [G, tokens, group, dv] of each chunk -> Workspace::heads, [tokens, G, group, dv].
void gather_heads(const float* grouped, const AttentionBatch& batch, const Compute& compute);

}  // namespace mha2mla::runtime
