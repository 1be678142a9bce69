#pragma once

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/coded_rows.h"
#include "kernels/cpu/vector_avx512.h"

/// Coded rows as bf16, 32 elements at a time, for products that take bf16. Included by *_avx512.cpp and *_amx.cpp, and
/// of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

constexpr std::int64_t coded_step = 32;

/// Rows of bf16; `stride` bytes from one to the next.
struct HalfRows {
    char* data;
    std::int64_t stride;
};

inline __mmask32 first_of_32(std::int64_t count) { return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << count) - 1; }

/// 32 numbers.
struct FloatPair {
    __m512 low, high;
};

/// Codes from a multiple of eight on. Bytes beyond those of `count` codes are not read.
template <int Bits>
FloatPair codes_from(const char* codes, std::int64_t element, std::int64_t count) {
    const char* const at = codes + element * Bits / 8;
    const __m256i bytes = _mm256_maskz_loadu_epi8(first_of_32((smaller(count, 32) * Bits + 7) / 8), at);
    __m256i spread = bytes;
    if constexpr (Bits == 4) {
        const __m128i low_digits = _mm256_castsi256_si128(bytes), mask = _mm_set1_epi8(0x0f);
        const __m128i even = _mm_and_si128(low_digits, mask), odd = _mm_and_si128(_mm_srli_epi16(low_digits, 4), mask);
        spread = _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd));
    } else if constexpr (Bits == 2) {
        const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const __m512i shifts = _mm512_slli_epi32(lanes, 1), mask = _mm512_set1_epi32(3);
        const __m128i words = _mm256_castsi256_si128(bytes);
        const __m512i low = _mm512_srlv_epi32(_mm512_broadcastd_epi32(words), shifts);
        const __m512i high = _mm512_srlv_epi32(_mm512_broadcastd_epi32(_mm_srli_si128(words, 4)), shifts);
        return {_mm512_cvtepi32_ps(_mm512_and_si512(low, mask)), _mm512_cvtepi32_ps(_mm512_and_si512(high, mask))};
    }
    const auto widened = [](__m128i of_16) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(of_16)); };
    return {widened(_mm256_castsi256_si128(spread)), widened(_mm256_extracti128_si256(spread, 1))};
}

void store_rounded(char* at, std::int64_t count, const FloatPair& x) {
    _mm512_mask_storeu_epi16(at, first_of_32(count), Avx512::to_bf16(x.low, x.high));
}

/// Rows whose groups lie within the row.
template <int Bits>
void load_grouped(const CodedRows& rows, const char* block, RowRange range, HalfRows out) {
    for_each_group(
        rows, block, range, [&](const CodedGroup& group) __attribute__((always_inline)) {
            int pair = 0;
            __builtin_memcpy(&pair, group.scales, sizeof pair);
            const __m512i pairs = _mm512_set1_epi32(pair);
            const __m512 scale = Avx512::even_bf16(pairs), zero = Avx512::odd_bf16(pairs);
            char* const row = out.data + group.row * out.stride;
            for (std::int64_t i = group.first; i < group.end; i += coded_step) {
                const FloatPair x = codes_from<Bits>(group.codes, i, group.end - i);
                store_rounded(row + i * 2, group.end - i,
                              {Avx512::fma(x.low, scale, zero), Avx512::fma(x.high, scale, zero)});
            }
        });
}

/// Rows that share a scale in each channel.
template <int Bits>
void load_by_channel(const CodedRows& rows, const char* block, RowRange range, HalfRows out) {
    for (std::int64_t i = 0; i < rows.width; i += coded_step) {
        const std::int64_t count = rows.width - i;
        const char* const scales = block + rows.scales_offset_bytes + i * 4;
        const auto mask = first_of_32(count);
        const __m512i low = _mm512_maskz_loadu_epi32(static_cast<__mmask16>(mask), scales);
        const __m512i high = _mm512_maskz_loadu_epi32(static_cast<__mmask16>(mask >> 16), scales + 64);
        const FloatPair scale{Avx512::even_bf16(low), Avx512::even_bf16(high)};
        const FloatPair zero{Avx512::odd_bf16(low), Avx512::odd_bf16(high)};
        const char* codes = block + rows.offset_bytes + range.first * rows.row_bytes;
        for (std::int64_t r = 0; r < range.count; ++r, codes += rows.row_bytes) {
            const FloatPair x = codes_from<Bits>(codes, i, count);
            store_rounded(out.data + r * out.stride + i * 2, count,
                          {Avx512::fma(x.low, scale.low, zero.low), Avx512::fma(x.high, scale.high, zero.high)});
        }
    }
}

template <int Bits>
void load_codes(const CodedRows& rows, const char* block, RowRange range, HalfRows out) {
    if (rows.group == 0) {
        load_by_channel<Bits>(rows, block, range, out);
    } else {
        load_grouped<Bits>(rows, block, range, out);
    }
}

/// Rows of codes or bf16 numbers, rounded to bf16. Nothing is written beyond a row's width.
void load_rounded(const CodedRows& rows, const char* block, RowRange range, HalfRows out) {
    switch (rows.bits) {
        case 2: return load_codes<2>(rows, block, range, out);
        case 4: return load_codes<4>(rows, block, range, out);
        case 8: return load_codes<8>(rows, block, range, out);
        default: break;
    }
    const char* row = block + rows.offset_bytes + range.first * rows.row_bytes;
    for (std::int64_t r = 0; r < range.count; ++r, row += rows.row_bytes, out.data += out.stride) {
        __builtin_memcpy(out.data, row, static_cast<std::size_t>(rows.width * 2));
    }
}

/// A sealed tile as rows of bf16 in the scratch; its keys get zeros up to a multiple of 32 channels. Others stay where
/// they are.
KeyTile rounded_tile(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
    if (!tile.sealed) return tile;
    const RowRange range{tile.first_token, tile.tokens};
    const std::int64_t key_stride = round_up(params.key_width, coded_step) * 2;
    char* keys = block.keys;
    for (const CodedRows& part : params.sealed.keys) {
        load_rounded(part, tile.keys, range, {keys, key_stride});
        keys += part.width * 2;
    }
    const std::int64_t rest = key_stride - params.key_width * 2;
    for (std::int64_t t = 0; t < tile.tokens && rest > 0; ++t) {
        __builtin_memset(keys + t * key_stride, 0, static_cast<std::size_t>(rest));
    }
    KeyTile rows{block.keys, key_stride, block.keys, key_stride, tile.first_key, tile.tokens, false, 0};
    if (tile.is_latent()) return rows;
    // The first half is for kernels that interleave values.
    rows.value_stride = block.parts.value_words * 2;
    char* const values = block.values + most_tile_tokens * rows.value_stride;
    load_rounded(params.sealed.values, tile.values, range, {values, rows.value_stride});
    rows.values = values;
    return rows;
}

}  // namespace
}  // namespace mha2mla::kernels
