#pragma once

#include <cstdint>
#include <immintrin.h>

#include "core/dtype.h"

/// Vector operations that the shared kernel templates are written in: AVX2. Included by files compiled for AVX2 and
/// beyond.
///
/// Everything that a file compiled for an instruction set defines has internal linkage. Otherwise the linker could pick
/// that file's copy of an inline function for code that runs on any machine.
namespace mha2mla::kernels {
namespace {

struct Avx2 {
    using Vector = __m256;
    using Words = __m256i;
    static constexpr int lanes = 8;
    static constexpr int accumulators = 12;       ///< registers for sums, of 16: the rest hold operands
    static constexpr int tiles_of_many_rows = 1;  ///< of a matrix at a time: weights are widened in few registers

    static Vector zero() { return _mm256_setzero_ps(); }
    static Vector set(float x) { return _mm256_set1_ps(x); }
    static Vector load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
    static Vector load_first(const float* p, std::int64_t count) { return _mm256_maskload_ps(p, first(count)); }
    static void store_first(float* p, std::int64_t count, Vector x) { _mm256_maskstore_ps(p, first(count), x); }
    static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
    static Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
    static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
    static Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
    static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
    static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
    static Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
    static Vector round(Vector x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    /// x where a > b, else `otherwise`.
    static Vector where_greater(Vector a, Vector b, Vector x, Vector otherwise) {
        return _mm256_blendv_ps(otherwise, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
    }
    /// x * 2^n for whole n. In two steps, since 2^n itself may not be a normal number.
    static Vector scale_by_power(Vector x, Vector n) {
        const __m256i whole = _mm256_cvtps_epi32(n);
        const __m256i half = _mm256_srai_epi32(whole, 1);
        return mul(mul(x, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)));
    }
    static float sum(Vector x) {
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
    }

    /// The even and the odd bf16 numbers of 16, as floats.
    static Vector even_bf16(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
    static Vector odd_bf16(__m256i pairs) {
        return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
    }
    /// The first numbers rounded as core::to_bf16 does: NaN, too.
    static void store_first_bf16(core::bf16* p, std::int64_t count, Vector x) {
        const __m256i bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
        const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
        const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
        const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
        const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
        const __m256i halves = _mm256_blendv_epi8(rounded, quiet, is_nan);
        const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
        if (count >= lanes) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
        __builtin_memcpy(static_cast<void*>(p), &packed, static_cast<std::size_t>(count) * sizeof *p);
    }
    static Words load_words(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
    static void store_words(void* p, Words x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
    /// 16 bytes, as often as they fit.
    static Words repeat(const std::uint8_t* p) {
        return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    /// The low and the high half of each byte.
    static Words low_halves(Words bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi8(15)); }
    static Words high_halves(Words bytes) { return low_halves(_mm256_srli_epi16(bytes, 4)); }
    /// Of every 16 bytes: those of the table that the others number; and the first, or last, 8 of two, in turns.
    static Words look_up(Words table, Words numbers) { return _mm256_shuffle_epi8(table, numbers); }
    static Words interleave_first(Words a, Words b) { return _mm256_unpacklo_epi8(a, b); }
    static Words interleave_last(Words a, Words b) { return _mm256_unpackhi_epi8(a, b); }

private:
    static __m256i first(std::int64_t count) {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
    }
    static Vector power_of_two(__m256i n) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
    }
};

}  // namespace
}  // namespace mha2mla::kernels
