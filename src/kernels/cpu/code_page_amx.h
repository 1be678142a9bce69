#pragma once

#include "kernels/cpu/code_rows_avx512.h"

/// A sealed page as code_attention_amx.h multiplies it: latents of 4 bits and rotary keys of 4 or 8 whose scales belong
/// to channels, spread to a digit of 4 bits a byte. Included by *_amx.cpp, and of internal linkage, as vector_avx2.h
/// says.
///
/// Keys are rows of digits as they lie: 32 bytes of a token's codes give a block of 64 columns, first their low digits,
/// then their high ones. Those of 4 bits are codes themselves, of even and odd channels; those of 8 bits are the two
/// digits of a channel, of which the high one has 16 times the scale and no zero. Columns behind the last channel have
/// a scale of zero. Values are quads of tokens.
namespace mha2mla::kernels {
namespace {

struct CodePage {
    std::int64_t key_bytes[2] = {};      // of a token's codes, in each part of the key
    std::int64_t columns = 0;            // digits of a token's key, whole blocks of 64
    std::uint8_t* keys = nullptr;        // [columns / 64][64 tokens][64]
    float* scale = nullptr;              // [columns]
    float* zero = nullptr;               // [columns]
    float* query = nullptr;              // [columns][rows]
    std::int8_t* query_steps = nullptr;  // [columns / 4][rows][4], the same times the scales, rounded
    float* query_step = nullptr;         // [rows]
    float* zero_score = nullptr;         // [rows], the score of a key whose codes are all zero
    CodeValues values;                   // in the place of the keys
    std::int32_t* products = nullptr;    // [rows][even, odd ones of 32 values]
};

constexpr std::int64_t digit_block = 32;  // bytes of codes
constexpr std::int64_t block_columns = 2 * digit_block;

std::int64_t bytes_of(const CodedRows& part) { return (part.width * part.bits + 7) / 8; }

std::int64_t columns_of(const CodedRows& part) { return 2 * round_up(bytes_of(part), digit_block); }

/// Calls visit(first column) for the quads of columns that have a channel: low digits of a block, then high ones.
template <class Visit>
[[gnu::always_inline]] inline void for_each_quad(const CodePage& page, const Visit& visit) {
    std::int64_t first = 0;
    for (const std::int64_t bytes : page.key_bytes) {
        for (std::int64_t byte = 0; byte < bytes; byte += digit_block, first += block_columns) {
            const std::int64_t used = smaller(digit_block, bytes - byte);
            for (std::int64_t half = first; half < first + block_columns; half += digit_block) {
                for (std::int64_t i = 0; i < used; i += per_quad) visit(half + i);
            }
        }
    }
}

CodePage code_page_of(const AttentionParams& params, const RowBlock& block) {
    CodePage page;
    page.values.channels = round_up(params.value_width, value_group);
    for (int i = 0; i < 2; ++i) {
        page.key_bytes[i] = bytes_of(params.sealed.keys[i]);
        page.columns += columns_of(params.sealed.keys[i]);
    }
    ScratchParts parts(block.codes);
    parts.take(page.keys, most_tile_tokens * page.columns);
    page.values.values = page.keys;  // spread when keys are done with, and tiles find both in the nearest cache
    parts.take(page.query, most_block_rows * page.columns);
    parts.take(page.query_steps, most_block_rows * page.columns);
    parts.take(page.products, most_block_rows * value_group);
    for (float** of_columns : {&page.scale, &page.zero}) parts.take(*of_columns, page.columns);
    for (float** of_values : {&page.values.scale, &page.values.zero}) parts.take(*of_values, page.values.channels);
    for (float** of_rows :
         {&page.query_step, &page.zero_score, &page.values.probability_step, &page.values.probability_sum}) {
        parts.take(*of_rows, most_block_rows);
    }
    return page;
}

/// The channel of a part that a column belongs to; it may lie behind the last.
std::int64_t channel_of(const CodedRows& part, std::int64_t column) {
    const std::int64_t byte = column / block_columns * digit_block + column % digit_block;
    const std::int64_t high = column % block_columns / digit_block;
    return part.bits == 4 ? 2 * byte + high : byte;
}

void load_keys(const CodedRows& part, const char* block, std::uint8_t* to) {
    const CodeReader codes(part, block);
    const __m512i low_bits = _mm512_set1_epi8(0x0f);
    for (std::int64_t byte = 0; 2 * byte < columns_of(part); byte += digit_block) {
        for (std::int64_t token = 0; token < most_tile_tokens; ++token, to += block_columns) {
            const __m256i both = codes.load(token, byte);
            const __m512i low_and_high =
                _mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1);
            _mm512_store_si512(to, _mm512_and_si512(low_and_high, low_bits));
        }
    }
}

/// Eight channels to the four columns of the even and those of the odd ones.
void store_even_and_odd(__m256 channels, float* even) {
    const __m256 halves = _mm256_permutevar8x32_ps(channels, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    _mm_storeu_ps(even, _mm256_castps256_ps128(halves));
    _mm_storeu_ps(even + digit_block, _mm256_extractf128_ps(halves, 1));
}

/// Those of a part's columns.
void load_key_scales(const CodedRows& part, const char* block, float* scale, float* zero) {
    const std::int64_t per_byte = part.bits == 4 ? 2 : 1;
    for (std::int64_t channel = 0; channel < columns_of(part) / 2 * per_byte; channel += 8) {
        const ScaleVectors s = scales_at(part, block, channel);
        const std::int64_t byte = channel / per_byte;
        const std::int64_t column = byte / digit_block * block_columns + byte % digit_block;
        if (part.bits == 4) {
            store_even_and_odd(s.scale, scale + column);
            store_even_and_odd(s.zero, zero + column);
        } else {
            Avx2::store(scale + column, s.scale);
            Avx2::store(scale + column + digit_block, Avx2::mul(s.scale, Avx2::set(16)));
            Avx2::store(zero + column, s.zero);
            Avx2::store(zero + column + digit_block, Avx2::zero());
        }
    }
}

void load_key_scales(const AttentionParams& params, const char* block, const CodePage& page) {
    std::int64_t column = 0;
    for (const CodedRows& part : params.sealed.keys) {
        load_key_scales(part, block, page.scale + column, page.zero + column);
        column += columns_of(part);
    }
}

void load_keys(const AttentionParams& params, const char* block, const CodePage& page) {
    std::uint8_t* to = page.keys;
    for (const CodedRows& part : params.sealed.keys) {
        load_keys(part, block, to);
        to += columns_of(part) * most_tile_tokens;
    }
}

}  // namespace
}  // namespace mha2mla::kernels
