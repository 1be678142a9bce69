#pragma once

#include <cstdint>
#include <immintrin.h>

#include "core/dtype.h"

/// Vector operations that the shared kernel templates are written in: AVX-512. Included by *_avx512.cpp and *_amx.cpp,
/// and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

struct Avx512 {
    using Vector = __m512;
    using Words = __m512i;
    static constexpr int lanes = 16;
    static constexpr int accumulators = 24;       ///< registers for sums, of 32: the rest hold operands
    static constexpr int tiles_of_many_rows = 2;  ///< of a matrix at a time

    static Vector zero() { return _mm512_setzero_ps(); }
    static Vector set(float x) { return _mm512_set1_ps(x); }
    static Vector load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
    static Vector load_first(const float* p, std::int64_t count) { return _mm512_maskz_loadu_ps(first(count), p); }
    static void store_first(float* p, std::int64_t count, Vector x) { _mm512_mask_storeu_ps(p, first(count), x); }
    static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
    static Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
    static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
    static Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
    static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
    static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
    static Vector min(Vector a, Vector b) { return _mm512_min_ps(a, b); }
    static Vector round(Vector x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    /// x where a > b, else `otherwise`.
    static Vector where_greater(Vector a, Vector b, Vector x, Vector otherwise) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), otherwise, x);
    }
    /// x * 2^n for whole n.
    static Vector scale_by_power(Vector x, Vector n) { return _mm512_scalef_ps(x, n); }
    static float sum(Vector x) { return _mm512_reduce_add_ps(x); }

    /// The even and the odd bf16 numbers of 32, as floats.
    static Vector even_bf16(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
    static Vector odd_bf16(__m512i pairs) {
        return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    }
    static Vector load_f16(const core::f16* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static Words load_words(const void* p) { return _mm512_loadu_si512(p); }
    static void store_words(void* p, Words x) { _mm512_storeu_si512(p, x); }
    /// 16 bytes, as often as they fit.
    static Words repeat(const std::uint8_t* p) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    /// The low and the high half of each byte.
    static Words low_halves(Words bytes) { return _mm512_and_si512(bytes, _mm512_set1_epi8(15)); }
    static Words high_halves(Words bytes) { return low_halves(_mm512_srli_epi16(bytes, 4)); }
    /// Of every 16 bytes: those of the table that the others number; and the first, or last, 8 of two, in turns.
    static Words look_up(Words table, Words numbers) { return _mm512_shuffle_epi8(table, numbers); }
    static Words interleave_first(Words a, Words b) { return _mm512_unpacklo_epi8(a, b); }
    static Words interleave_last(Words a, Words b) { return _mm512_unpackhi_epi8(a, b); }

    /// The first numbers rounded as core::to_bf16 does: denormal numbers and NaN, too.
    static void store_first_bf16(core::bf16* p, std::int64_t count, Vector x) {
        const __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
        const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
        const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
        const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        const __m512i halves = _mm512_mask_or_epi32(rounded, is_nan, high, _mm512_set1_epi32(0x40));
        _mm512_mask_cvtepi32_storeu_epi16(p, first(count), halves);
    }

    /// Two float vectors rounded to bf16: [low | high].
    static __m512i to_bf16(Vector low, Vector high) { return bits_of(_mm512_cvtne2ps_pbh(high, low)); }
    static __m512i bits_of(__m512bh x) { return reinterpret_cast<__m512i>(x); }
    /// acc + the dot product of the bf16 pairs in each 32-bit word.
    static Vector dot_bf16(Vector acc, __m512i a, __m512i b) {
        return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
    }

private:
    static __mmask16 first(std::int64_t count) {
        return count >= lanes ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1u);
    }
};

}  // namespace
}  // namespace mha2mla::kernels
