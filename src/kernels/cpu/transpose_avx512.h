#pragma once

#include "kernels/cpu/vector_avx512.h"

/// Included by files compiled for AVX-512 and beyond, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// 16 x 16 words of 32 bits. Calls take(column, its words).
template <class Take>
__attribute__((always_inline)) inline void transpose_rows(const __m512i (&rows)[16], const Take& take) {
    __m512i pairs[16];  // of two rows each, within lanes of 128 bits
    for (int r = 0; r < 16; r += 2) {
        pairs[r] = _mm512_unpacklo_epi32(rows[r], rows[r + 1]);
        pairs[r + 1] = _mm512_unpackhi_epi32(rows[r], rows[r + 1]);
    }
    __m512i quads[4][4];  // [k][rows 4i to 4i + 3]: column 4l + k in lane l
    for (int i = 0; i < 4; ++i) {
        quads[0][i] = _mm512_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
        quads[1][i] = _mm512_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
        quads[2][i] = _mm512_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
        quads[3][i] = _mm512_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
    }
    constexpr int even = 0x88, odd = 0xdd;  // lanes of either operand
    for (int k = 0; k < 4; ++k) {
        const __m512i low_even = _mm512_shuffle_i32x4(quads[k][0], quads[k][1], even);
        const __m512i high_even = _mm512_shuffle_i32x4(quads[k][2], quads[k][3], even);
        const __m512i low_odd = _mm512_shuffle_i32x4(quads[k][0], quads[k][1], odd);
        const __m512i high_odd = _mm512_shuffle_i32x4(quads[k][2], quads[k][3], odd);
        take(k, _mm512_shuffle_i32x4(low_even, high_even, even));
        take(4 + k, _mm512_shuffle_i32x4(low_odd, high_odd, even));
        take(8 + k, _mm512_shuffle_i32x4(low_even, high_even, odd));
        take(12 + k, _mm512_shuffle_i32x4(low_odd, high_odd, odd));
    }
}

/// One number for each of 16 vectors: `combine` of its lanes.
template <class Combine>
__attribute__((always_inline)) inline __m512 combine_lanes(const float* vectors, const Combine& combine) {
    __m512 quads[4];  // in lane l: of vectors 4 i to 4 i + 3
    for (int i = 0; i < 4; ++i) {
        __m512 rows[4];
        for (int r = 0; r < 4; ++r) rows[r] = Avx512::load(vectors + (4 * i + r) * Avx512::lanes);
        const __m512 low = combine(_mm512_unpacklo_ps(rows[0], rows[1]), _mm512_unpackhi_ps(rows[0], rows[1]));
        const __m512 high = combine(_mm512_unpacklo_ps(rows[2], rows[3]), _mm512_unpackhi_ps(rows[2], rows[3]));
        quads[i] = combine(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
    }
    constexpr int even = 0x88, odd = 0xdd;  // lanes of either operand
    const __m512 first =
        combine(_mm512_shuffle_f32x4(quads[0], quads[1], even), _mm512_shuffle_f32x4(quads[0], quads[1], odd));
    const __m512 second =
        combine(_mm512_shuffle_f32x4(quads[2], quads[3], even), _mm512_shuffle_f32x4(quads[2], quads[3], odd));
    return combine(_mm512_shuffle_f32x4(first, second, even), _mm512_shuffle_f32x4(first, second, odd));
}

/// In memory. Strides are bytes from one row to the next.
inline void transpose_words(const char* from, std::int64_t from_stride, char* to, std::int64_t to_stride) {
    __m512i rows[16];
    for (int r = 0; r < 16; ++r) rows[r] = Avx512::load_words(from + r * from_stride);
    transpose_rows(rows, [&](int column, __m512i words) { _mm512_storeu_si512(to + column * to_stride, words); });
}

}  // namespace
}  // namespace mha2mla::kernels
