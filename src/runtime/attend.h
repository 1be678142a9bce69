#pragma once

#include <cstdint>

#include "runtime/compute.h"

namespace mha2mla::runtime {

/// Attention of a chunk's queries over cached keys. A stream is a set of query rows that share keys: the heads of one
/// KV head, or all heads over one latent.
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
    const kernels::PackedMatrix* positions = nullptr;  // [positions, d], one row a key; null: no positional part
    const float* position_q = nullptr;                 // [streams, rows, d]: position_q . row joins the scaled logit
    float* out = nullptr;                              // [streams, rows, value_width]
    float* log_sum = nullptr;  // [streams, rows], may be null: log of the sum of exp(logit); -inf without a key
};

/// Few rows (decode): split over keys, every worker handles all streams of its keys, merged by log-sum-exp. Many rows
/// (prefill): split over rows.
void attend(const AttendJob& job, const Compute& compute);

}  // namespace mha2mla::runtime
