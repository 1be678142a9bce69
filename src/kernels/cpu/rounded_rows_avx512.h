#pragma once

#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vector_avx512.h"

/// x rounded to bf16 for products with bf16 weights. Included by *_avx512.cpp and *_amx.cpp, and of internal linkage,
/// as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// x [rows, inputs] as bf16 rows of `row_bytes`; what lies beyond the inputs is zero up to the next 64 bytes.
void round_rows(const LinearParams& params, char* rounded, std::int64_t row_bytes) {
    const std::int64_t inputs = params.weight.inputs;
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.x_stride;
        for (std::int64_t i = 0; i < inputs; i += 32) {
            const std::int64_t count = inputs - i;
            const __m512 low = Avx512::load_first(x + i, count);
            const __m512 high = count > 16 ? Avx512::load_first(x + i + 16, count - 16) : Avx512::zero();
            _mm512_store_si512(rounded + row * row_bytes + i * 2, Avx512::to_bf16(low, high));
        }
    }
}

}  // namespace
}  // namespace mha2mla::kernels
