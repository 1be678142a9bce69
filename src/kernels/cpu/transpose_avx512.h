#pragma once

#include "kernels/cpu/vector_avx512.h"

/// Included by files compiled for AVX-512 and beyond, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// 4 x 4 words of 32 bits in each lane of 128.
__attribute__((always_inline)) inline void transpose_lanes(const __m512i (&rows)[4], __m512i (&columns)[4]) {
    const __m512i low01 = _mm512_unpacklo_epi32(rows[0], rows[1]), high01 = _mm512_unpackhi_epi32(rows[0], rows[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(rows[2], rows[3]), high23 = _mm512_unpackhi_epi32(rows[2], rows[3]);
    columns[0] = _mm512_unpacklo_epi64(low01, low23);
    columns[1] = _mm512_unpackhi_epi64(low01, low23);
    columns[2] = _mm512_unpacklo_epi64(high01, high23);
    columns[3] = _mm512_unpackhi_epi64(high01, high23);
}

/// 16 x 16 words of 32 bits. Calls take(column, its words).
template <class Take>
__attribute__((always_inline)) inline void transpose_rows(const __m512i (&rows)[16], const Take& take) {
    __m512i quads[4][4];  // [rows 4i to 4i + 3][k]: column 4l + k in lane l
    for (int i = 0; i < 4; ++i) {
        transpose_lanes({rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]}, quads[i]);
    }
    constexpr int even = 0x88, odd = 0xdd;  // lanes of either operand
    for (int k = 0; k < 4; ++k) {
        const __m512i low_even = _mm512_shuffle_i32x4(quads[0][k], quads[1][k], even);
        const __m512i high_even = _mm512_shuffle_i32x4(quads[2][k], quads[3][k], even);
        const __m512i low_odd = _mm512_shuffle_i32x4(quads[0][k], quads[1][k], odd);
        const __m512i high_odd = _mm512_shuffle_i32x4(quads[2][k], quads[3][k], odd);
        take(k, _mm512_shuffle_i32x4(low_even, high_even, even));
        take(4 + k, _mm512_shuffle_i32x4(low_odd, high_odd, even));
        take(8 + k, _mm512_shuffle_i32x4(low_even, high_even, odd));
        take(12 + k, _mm512_shuffle_i32x4(low_odd, high_odd, odd));
    }
}

/// `combine` of the four words in each lane of each vector: [lanes][4 vectors].
template <class Combine>
__attribute__((always_inline)) inline __m512 combine_words(const __m512 (&vectors)[4], const Combine& combine) {
    const auto& [a, b, c, d] = vectors;
    const __m512 ab = combine(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = combine(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    return combine(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
}

/// One number for each of 16 vectors: `combine` of its lanes.
template <class Combine>
__attribute__((always_inline)) inline __m512 combine_lanes(const float* vectors, const Combine& combine) {
    __m512 quads[4];  // in lane l: of vectors 4 i to 4 i + 3
    for (int i = 0; i < 4; ++i) {
        __m512 rows[4];
        for (int r = 0; r < 4; ++r) rows[r] = Avx512::load(vectors + (4 * i + r) * Avx512::lanes);
        quads[i] = combine_words(rows, combine);
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
