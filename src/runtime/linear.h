#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/chunk.h"
#include "runtime/matrix.h"

namespace mha2mla::runtime {

/// y = x Wᵀ + b, or y += x Wᵀ + b.
struct LinearJob {
    const float* x = nullptr;  // [rows, inputs]
    std::int64_t rows = 0;
    const Linear* linear = nullptr;
    float* y = nullptr;  // [rows, outputs]
    bool accumulate = false;
};

/// The kernel's parameters for output tiles [first_tile, end_tile) of a job, but for the scratch.
kernels::LinearParams linear_params(const LinearJob& job, std::int64_t first_tile, std::int64_t end_tile);
/// The whole job, output tiles split over the workers.
void run_linear(const LinearJob& job, const Compute& compute);

/// One matrix per KV head, applied to that head's rows in every chunk: y_g = x_g W_gᵀ.
struct GroupedLinearJob {
    const float* x = nullptr;  // [G, tokens, group, inputs] of each chunk
    std::span<const Chunk> chunks;
    std::int64_t group = 0;
    const std::vector<Matrix>* matrices = nullptr;
    float* y = nullptr;  // [G, tokens, group, ...] of each chunk
    std::int64_t y_stride = 0;
};

void run_grouped_linear(const GroupedLinearJob& job, const Compute& compute);

}  // namespace mha2mla::runtime
