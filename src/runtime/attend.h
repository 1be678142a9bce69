#pragma once

#include <cstdint>

#include "runtime/chunk.h"
#include "runtime/compute.h"
#include "runtime/position_table.h"

namespace mha2mla::runtime {

/// Attention of a chunk's queries over cached keys. A stream is a set of query rows that share keys: the heads of one
/// KV head, or all heads of a latent group.
struct AttendJob {
    core::DType dtype = core::DType::bf16;
    std::int64_t streams = 0;
    std::int64_t rows = 0;  // of one stream
    std::int64_t key_width = 0;
    std::int64_t value_width = 0;
    std::int64_t key_stride_bytes = 0;
    std::int64_t value_stride_bytes = 0;
    float scale = 0;
    const kernels::KeyValueBlock* blocks = nullptr;  // [streams, block_count], pages of page_tokens
    kernels::SealedFormat sealed = {};               // of the sealed ones
    std::int64_t block_count = 0;
    std::int64_t keys = 0;
    const float* q = nullptr;               // [streams, rows, key_width]
    const std::int64_t* visible = nullptr;  // [rows]: row m sees keys [first_key, visible[m])
    std::int64_t first_key = 0;
    const PositionTable* positions = nullptr;  // null: no positional part
    const float* position_q = nullptr;         // [streams, rows, d]: its product with a position joins the scaled logit
    float* out = nullptr;                      // [streams, rows, value_width]
    float* log_sum = nullptr;  // [streams, rows], may be null: log of the sum of exp(logit); -inf without a key
};

/// Few rows (decode): split over keys, every worker handles all streams of its keys, merged by log-sum-exp. Many rows
/// (prefill): split over rows.
void attend(const AttendJob& job, const Compute& compute);

/// Where the partial result of a key range goes, and what a worker has for itself meanwhile.
struct AttendPart {
    float* out;  // [rows of all streams, value_width]
    float* max;  // [rows of all streams]
    float* sum;
    PositionBuffers positions;
    void* scratch;
};

/// All streams of a job over the keys of blocks [begin, end).
void attend_blocks(const AttendJob& job, std::int64_t begin, std::int64_t end, const AttendPart& part,
                   const Compute& compute);

/// Attention of every chunk of a batch over the keys of its sequence. `job_of` lists the pages of a chunk in `blocks`,
/// [streams, pages], and says what is to be done; it is called on the workers. Chunks of few rows (decode steps of
/// several sequences) go together: their keys are dealt out in one go, so that they all cost one barrier.
void attend_all(const AttentionBatch& batch,
                core::FunctionRef<AttendJob(const Chunk& chunk, kernels::KeyValueBlock* blocks)> job_of,
                const Compute& compute);

}  // namespace mha2mla::runtime
