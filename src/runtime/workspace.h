#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/arena.h"
#include "core/dtype.h"
#include "kernels/kernels.h"
#include "runtime/position_table.h"

namespace mha2mla::runtime {

/// Tokens of the largest batch, over all its chunks, that one pass through the layers handles.
inline constexpr std::int64_t max_chunk_tokens = 512;
/// Rows whose logits are computed together where those of all tokens are wanted.
inline constexpr std::int64_t max_logit_rows = 32;
/// Query rows of one attention task of a prefill: their state stays in the first-level cache.
inline constexpr std::int64_t attention_task_rows = 64;
/// Up to so many query rows (a decode step) attention is split over keys, beyond over rows.
inline constexpr std::int64_t max_key_split_rows = 256;

/// Query rows times blocks of positions whose logits are found at once, before their keys are attended to: 655 KB of
/// floats, which a second-level cache of a megabyte keeps. For each such run of keys the attention kernel packs its
/// queries anew.
inline constexpr std::int64_t max_position_rows = 640;

/// The largest sizes that any layer needs. Widths in elements.
struct WorkspaceShape {
    std::int64_t tokens = 0;  ///< of a batch
    std::int64_t workers = 1;
    std::int64_t hidden = 0;
    std::int64_t intermediate = 0;
    std::int64_t vocab = 0;
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;
    std::int64_t projected = 0;    ///< outputs of attention_in
    std::int64_t heads_width = 0;  ///< inputs of attention_out
    std::int64_t key_width = 0;
    std::int64_t value_width = 0;
    std::int64_t nope_width = 0;
    std::int64_t latent_width = 0;             ///< (R + K dr) / L
    std::int64_t expanded_key = 0;             ///< dn + dr
    std::int64_t expanded_value = 0;           ///< dv
    std::int64_t position_width = 0;           ///< d where the model has a positional part, else 0
    std::int64_t sink_tokens = 0;              ///< S
    std::int64_t sink_width = 0;               ///< d where there are sinks, else 0
    std::int64_t pages = 0;                    ///< of the longest sequence
    core::DType kv_cache = core::DType::bf16;  ///< of exact rows
};

/// Where the positional logits of some blocks of positions go, and the queries that they come from. A row here is a
/// query row in one block.
struct PositionBuffers {
    float* logits;           // [max_position_rows, position_block_tokens]
    float* turned_query;     // [max_key_split_rows, d]
    float* projected_query;  // [max_key_split_rows, r], r <= d
};

/// Every buffer of a forward pass, sized up front, so that a decode step allocates nothing. Memory is taken on first
/// touch: what only a long prefill uses costs nothing before.
class Workspace {
public:
    explicit Workspace(const WorkspaceShape& shape);

    cache::ArenaArray<float> hidden;          // [tokens, E]: the residual stream
    cache::ArenaArray<float> normed;          // [tokens, E]
    cache::ArenaArray<float> projected;       // [tokens, outputs of attention_in]
    cache::ArenaArray<float> nope;            // [G, tokens * group, dn]: un-rotated query parts
    cache::ArenaArray<float> query;           // [streams, rows, key_width]
    cache::ArenaArray<float> position_query;  // [G, tokens * group, d]: what meets the position table
    cache::ArenaArray<float> attended;        // [streams, rows, value_width]
    cache::ArenaArray<float> grouped;         // [parts, G, tokens * group, dv]: two parts where there are sinks
    cache::ArenaArray<float> sink_projected;  // [S, 2 G d]: keys and values
    cache::ArenaArray<float> sink_query;      // [G, tokens * group, d]
    cache::ArenaArray<float> part_max;        // [2, H tokens]: of the parts of `grouped`
    cache::ArenaArray<float> part_sum;        // likewise
    cache::ArenaArray<float> heads;           // [tokens, H dv]
    cache::ArenaArray<float> gate;            // [tokens, intermediate]
    cache::ArenaArray<float> up;              // [tokens, intermediate]
    cache::ArenaArray<float> logits;          // [tokens, vocab]

    cache::ArenaArray<std::int64_t> visible;           // [H tokens]: keys that each query row sees
    cache::ArenaArray<kernels::KeyValueBlock> blocks;  // [workers, streams, pages]
    cache::ArenaArray<float> partial;                  // [2 workers, max_key_split_rows, value_width]
    cache::ArenaArray<float> row_max;                  // [2 workers * max_key_split_rows or H tokens]
    cache::ArenaArray<float> row_sum;                  // likewise
    cache::ArenaArray<float> position_logits;          // [workers, max_position_rows, position_block_tokens]
    cache::ArenaArray<float> turned_query;             // [workers, max_key_split_rows, d]
    cache::ArenaArray<float> projected_query;          // likewise

    cache::Arena expanded_keys;    // [context tokens, dn + dr] of one KV head, in the cache's type
    cache::Arena expanded_values;  // [context tokens, dv]

    /// Rows of its own.
    PositionBuffers positions_of(int worker) const {
        return {.logits = position_logits.data() + worker * max_position_rows * position_block_tokens,
                .turned_query = turned_query.data() + worker * position_query_stride_,
                .projected_query = projected_query.data() + worker * position_query_stride_};
    }
    /// [streams, pages] of its own.
    kernels::KeyValueBlock* blocks_of(int worker) const { return blocks.data() + worker * blocks_stride_; }
    /// Scratch of the kernel that worker `worker` runs.
    void* kernel_scratch(int worker) const {
        return scratch_.data() + scratch_stride_ * static_cast<std::size_t>(worker);
    }
    /// [page_tokens, max(dn, dv)] floats of its own.
    float* rebuilt_rows(int worker) const;
    /// [page_tokens, (R + K dr) / L + group_unit] floats of its own.
    float* latent_rows(int worker) const;

private:
    std::int64_t position_query_stride_;
    std::int64_t blocks_stride_;
    std::size_t kernel_bytes_;
    std::size_t rebuilt_bytes_;
    std::size_t scratch_stride_;
    cache::Arena scratch_;
};

}  // namespace mha2mla::runtime
