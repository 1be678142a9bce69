#pragma once

#include <cstdint>

#include "cache/sequence_cache.h"
#include "checkpoint/model_config.h"
#include "runtime/compute.h"
#include "runtime/rope_table.h"

namespace mha2mla::runtime {

/// Tokens that pass through the layers together. Their rows in the cache are reserved.
struct Chunk {
    const cache::SequenceCache& cache;
    std::int64_t first_position = 0;
    std::int64_t tokens = 0;

    /// Cached tokens once the chunk is stored.
    std::int64_t keys() const { return first_position + tokens; }
    std::int64_t pages() const { return (keys() + cache::page_tokens - 1) / cache::page_tokens; }
};

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

/// What the attention of one layer reads beside its weights. Its input is Workspace::projected, its output
/// Workspace::heads.
struct AttentionInput {
    const AttentionShape& shape;
    const RopeTable& rope;
    const kernels::PackedMatrix* positions;  // of PositionTable; null: no positional part
    const Chunk& chunk;
    int layer = 0;
    std::int64_t projected_width = 0;
};

/// Rows [begin, end) of a chunk on their way to a plane of the cache.
struct CacheRows {
    const float* x = nullptr;  // row 0 of the chunk
    std::int64_t x_stride = 0;
    int plane = 0;
    std::int64_t begin = 0;
    std::int64_t end = 0;
};

void store_cache_rows(const AttentionInput& input, const CacheRows& rows, const kernels::KernelSet& kernels);

/// Seals the pages that the chunk fills, once all its queries have attended to them exactly.
void seal_full_pages(const AttentionInput& input, const Compute& compute);

/// [G, tokens, group, dv] -> [tokens, G, group, dv].
void gather_heads(const float* grouped, const AttentionInput& input, const Compute& compute);

}  // namespace mha2mla::runtime
