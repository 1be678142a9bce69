#pragma once

#include "kernels/cpu/coded_rows_avx512.h"
#include "kernels/cpu/transpose_avx512.h"

/// bf16 attention on AVX-512. Included by *_avx512.cpp and *_amx.cpp, and of internal linkage, as vector_avx2.h
/// says.
namespace mha2mla::kernels {
namespace {

/// Words are pairs of bf16: cached rows are multiplied as they lie in memory.
struct Bf16Words {
    using Word = __m512i;
    static constexpr int width = 2;
    static constexpr int exp_degree = 4;  ///< below the rounding of probabilities to bf16

    static constexpr auto read = rounded_tile;
    static Word load(const char* p) { return _mm512_loadu_si512(p); }
    static void store(char* p, Word x) { _mm512_storeu_si512(p, x); }
    static constexpr auto broadcast = [](const char* p) __attribute__((always_inline)) {
        int word = 0;
        __builtin_memcpy(&word, p, 4);
        return _mm512_set1_epi32(word);
    };
    static constexpr auto broadcast_last = [](const char* p) __attribute__((always_inline)) {
        std::uint16_t half = 0;
        __builtin_memcpy(&half, p, 2);
        return _mm512_set1_epi32(half);
    };
    static __m512 dot(__m512 sums, Word a, Word b) { return Avx512::dot_bf16(sums, a, b); }
    static Word ones() { return _mm512_set1_epi32(0x3f803f80); }

    // The two tokens' bf16 of a row side by side.
    static Word pack_probabilities(const __m512 (&p)[2]) {
        return _mm512_permutexvar_epi16(interleave_halves(), Avx512::to_bf16(p[0], p[1]));
    }

    static void add_columns(const FloatBlock& x, float factor, float* y, std::int64_t y_stride) {
        __m512i rows[16];
        for (int r = 0; r < 16; ++r) {
            const __m512 row = r < x.rows ? Avx512::load_first(x.data + r * x.stride, x.columns) : Avx512::zero();
            rows[r] = _mm512_castps_si512(row);
        }
        transpose_rows(rows, [&](int column, __m512i words) {
            if (column >= x.columns) return;
            float* const at = y + column * y_stride;
            Avx512::store(at, Avx512::fma(_mm512_castsi512_ps(words), Avx512::set(factor), Avx512::load(at)));
        });
    }

    static void pack_query(const FloatBlock& x, float factor, char* words, std::int64_t stride) {
        const __m512 by = Avx512::set(factor);
        __m512i rows[16];
        for (int r = 0; r < 16; ++r) {
            const float* const row = x.data + r * x.stride;
            const bool any = r < x.rows, wide = any && x.columns > 16;
            const __m512 low = any ? Avx512::mul(Avx512::load_first(row, x.columns), by) : Avx512::zero();
            const __m512 high = wide ? Avx512::mul(Avx512::load_first(row + 16, x.columns - 16), by) : Avx512::zero();
            rows[r] = Avx512::to_bf16(low, high);
        }
        transpose_rows(rows, [&](int word, __m512i lanes) {
            if (2 * word < x.columns) store(words + word * stride, lanes);
        });
    }

    // 32 channels of two tokens, the tokens' bf16 side by side. Neither channels nor a token beyond the end are read.
    static void load_values(const KeyTile& tile, std::int64_t token, std::int64_t channel, std::int64_t channels,
                            Word (&values)[2]) {
        const __mmask32 mask = first_of_32(channels);
        const char* row = tile.values + token * tile.value_stride + channel * 2;
        const Word first = _mm512_maskz_loadu_epi16(mask, row);
        const __mmask32 second_mask = token + 1 < tile.tokens ? mask : 0;
        const Word second = _mm512_maskz_loadu_epi16(second_mask, row + tile.value_stride);
        values[0] = _mm512_permutex2var_epi16(first, interleave_low(), second);
        values[1] = _mm512_permutex2var_epi16(first, interleave_high(), second);
    }

    static std::uint32_t rounded_bits(float x) {
        const __m128bh rounded = _mm_cvtneps_pbh(_mm_set_ss(x));
        return static_cast<std::uint32_t>(_mm_extract_epi16(reinterpret_cast<__m128i>(rounded), 0));
    }

private:
    // Indices 0, 32, 1, 33, ... as pairs, from `first`.
    static Word interleave_from(int first) {
        const Word lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const Word low = _mm512_add_epi32(lane, _mm512_set1_epi32(first));
        return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_add_epi32(low, _mm512_set1_epi32(32)), 16));
    }
    static Word interleave_low() { return interleave_from(0); }
    static Word interleave_high() { return interleave_from(16); }
    // Indices 0, 16, 1, 17, ... within one vector.
    static Word interleave_halves() {
        const Word lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return _mm512_or_si512(lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(16)), 16));
    }
};

}  // namespace
}  // namespace mha2mla::kernels
