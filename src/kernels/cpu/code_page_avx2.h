#pragma once

#include "kernels/cpu/code_reader_avx2.h"
#include "kernels/cpu/float_attention_avx2.h"

/// A sealed page as code_attention_avx2.h multiplies it: latents of 4 bits and rotary keys of 4 or 8 whose scales
/// belong to channels, spread to a digit of 4 bits a byte. Included by *_avx2.cpp, and of internal linkage, as
/// vector_avx2.h says.
///
/// Keys come as quads of digits, values as quads of tokens, so that one instruction adds up products of neighbours.
/// Four bytes of a token's codes give two quads of columns: first their low digits, then their high ones. Those of 4
/// bits are codes themselves, of channels 0, 2, 4, 6 and 1, 3, 5, 7 of eight; those of 8 bits are the two digits of
/// channels 0 to 3, of which the high one has 16 times the scale and no zero. Columns behind the last channel have a
/// scale of zero.
namespace mha2mla::kernels {
namespace {

struct CodeTile {
    std::int64_t columns = 0;                // digits of a token's key, whole blocks of 8
    std::int64_t column_stride = 0;          // the same in whole vectors of bytes
    std::int64_t value_bytes = 0;            // channels of a value, likewise
    unsigned char* keys = nullptr;           // [columns / 4, 64 tokens, 4]
    signed char* values = nullptr;           // [value_bytes / 32, 64 / 4 quads of tokens, 128]: see interleave_quad
    float* scale = nullptr;                  // [columns]
    float* zero = nullptr;                   // [columns]
    float* value_scale = nullptr;            // [value_bytes]
    float* value_zero = nullptr;             // [value_bytes]
    float* query = nullptr;                  // [rows, column_stride]
    float* folded = nullptr;                 // [column_stride], the query of one row times the scales
    signed char* query_steps = nullptr;      // [rows, column_stride], the same, rounded
    unsigned char* probabilities = nullptr;  // [rows, 64], in steps
    float* query_step = nullptr;             // [rows]
    float* zero_score = nullptr;             // [rows], the score of a key whose codes are all zero
    float* probability_step = nullptr;       // [rows]
    float* probability_sum = nullptr;        // [rows], in steps
};

constexpr std::int64_t code_vector = 32;   // bytes
constexpr std::int64_t block_columns = 8;  // of four bytes of codes
constexpr std::int64_t per_quad = 4;       // tokens or digits
constexpr std::int64_t key_quad_bytes = per_quad * most_tile_tokens;
constexpr std::int64_t value_quad_bytes = per_quad * code_vector;

std::int64_t columns_of(const CodedRows& part) { return round_up(part.width * part.bits, 32) / 4; }

/// The channel of a part that a column belongs to; it may lie behind the last.
std::int64_t channel_of(const CodedRows& part, std::int64_t column) {
    const std::int64_t block = column / block_columns, high = column % block_columns / per_quad,
                       byte = column % per_quad;
    return part.bits == 4 ? block * block_columns + 2 * byte + high : block * per_quad + byte;
}

CodeTile code_tile_of(const AttentionParams& params, const RowBlock& block) {
    CodeTile tile{.value_bytes = round_up(params.value_width, code_vector)};
    for (const CodedRows& part : params.sealed.keys) tile.columns += columns_of(part);
    tile.column_stride = round_up(tile.columns, code_vector);
    ScratchParts parts(block.codes);
    parts.take(tile.keys, most_tile_tokens * tile.columns);
    parts.take(tile.values, most_tile_tokens * tile.value_bytes);
    parts.take(tile.query, most_block_rows * tile.column_stride);
    parts.take(tile.query_steps, most_block_rows * tile.column_stride);
    parts.take(tile.probabilities, most_block_rows * most_tile_tokens);
    for (float** of_columns : {&tile.scale, &tile.zero, &tile.folded}) parts.take(*of_columns, tile.column_stride);
    for (float** of_values : {&tile.value_scale, &tile.value_zero}) parts.take(*of_values, tile.value_bytes);
    for (float** of_rows : {&tile.query_step, &tile.zero_score, &tile.probability_step, &tile.probability_sum}) {
        parts.take(*of_rows, most_block_rows);
    }
    return tile;
}

/// The scaled queries of the block, column by column, and what lies behind the last column.
void spread_queries(const AttentionParams& params, const RowBlock& block, const CodeTile& tile) {
    const std::int64_t floats = query_floats(params);
    for (std::int64_t row = 0; row < block.rows; ++row) {
        const float* query = reinterpret_cast<const float*>(block.query) + row * floats;
        float* to = tile.query + row * tile.column_stride;
        for (const CodedRows& part : params.sealed.keys) {
            for (std::int64_t column = 0; column < columns_of(part); ++column) {
                const std::int64_t channel = channel_of(part, column);
                *to++ = channel < part.width ? query[channel] : 0;
            }
            query += part.width;
        }
        for (std::int64_t column = tile.columns; column < tile.column_stride; ++column) *to++ = 0;
    }
    for (std::int64_t column = tile.columns; column < tile.column_stride; ++column) tile.folded[column] = 0;
}

void store_bytes(void* at, __m256i bytes) { _mm256_storeu_si256(static_cast<__m256i*>(at), bytes); }

/// Eight vectors of words: item j of vector i becomes item i of vector j.
void transpose(__m256i (&x)[8]) {
    __m256i pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        x[i] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
        x[i + 4] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
    }
}

/// Eight tokens of 32 bytes of codes, of which `blocks` times four are used.
void load_key_block(const CodeReader& codes, std::int64_t token, std::int64_t byte, std::int64_t blocks,
                    unsigned char* to) {
    const __m256i low_bits = _mm256_set1_epi8(0x0f);
    __m256i words[8];
    for (int t = 0; t < 8; ++t) words[t] = codes.load(token + t, byte);
    transpose(words);
    for (int i = 0; i < 8 && i < blocks; ++i, to += 2 * key_quad_bytes) {
        store_bytes(to, _mm256_and_si256(words[i], low_bits));
        store_bytes(to + key_quad_bytes, _mm256_and_si256(_mm256_srli_epi16(words[i], 4), low_bits));
    }
}

void load_keys(const CodedRows& part, const char* block, unsigned char* to) {
    const CodeReader codes(part, block);
    const std::int64_t blocks = columns_of(part) / block_columns;
    for (std::int64_t first = 0; first < blocks; first += 8) {
        for (std::int64_t token = 0; token < most_tile_tokens; token += 8) {
            unsigned char* const quads = to + 2 * first * key_quad_bytes + token * per_quad;
            load_key_block(codes, token, first * 4, blocks - first, quads);
        }
    }
}

/// Those of a part's columns.
void load_key_scales(const CodedRows& part, const char* block, float* scale, float* zero) {
    const __m256i even_then_odd = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    const __m256i low_twice = _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3);
    const __m256 weights = _mm256_setr_ps(1, 1, 1, 1, 16, 16, 16, 16), zeros = _mm256_setr_ps(1, 1, 1, 1, 0, 0, 0, 0);
    for (std::int64_t i = 0; i < columns_of(part); i += block_columns) {
        const ScaleVectors s = scales_at(part, block, channel_of(part, i));
        if (part.bits == 4) {
            Avx2::store(scale + i, _mm256_permutevar8x32_ps(s.scale, even_then_odd));
            Avx2::store(zero + i, _mm256_permutevar8x32_ps(s.zero, even_then_odd));
        } else {
            Avx2::store(scale + i, Avx2::mul(_mm256_permutevar8x32_ps(s.scale, low_twice), weights));
            Avx2::store(zero + i, Avx2::mul(_mm256_permutevar8x32_ps(s.zero, low_twice), zeros));
        }
    }
}

/// Values are kept as codes - 8, from -8 to 7: twice as many products fit a 16-bit sum.
constexpr int middle_code = 8;

/// 32 codes of 4 bits, one a byte.
__m256i spread_codes(__m128i codes) {
    const __m256i pairs = _mm256_cvtepu8_epi16(codes);
    return _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4)), _mm256_set1_epi8(0x0f));
}

/// The values of 32 channels in four tokens, so that the tokens of a channel lie side by side. Unpacking works within
/// 16 bytes: vector v holds channels 4 v to 4 v + 3, then 16 + 4 v to 16 + 4 v + 3.
void interleave_quad(const CodeReader& codes, std::int64_t token, std::int64_t byte, signed char* to) {
    __m128i halves[4];
    codes.load_halves(token, byte, halves);
    const auto values = [&](int t) { return _mm256_sub_epi8(spread_codes(halves[t]), _mm256_set1_epi8(middle_code)); };
    const __m256i a = values(0), b = values(1), c = values(2), d = values(3);
    const __m256i low_ab = _mm256_unpacklo_epi8(a, b), high_ab = _mm256_unpackhi_epi8(a, b);
    const __m256i low_cd = _mm256_unpacklo_epi8(c, d), high_cd = _mm256_unpackhi_epi8(c, d);
    store_bytes(to, _mm256_unpacklo_epi16(low_ab, low_cd));
    store_bytes(to + code_vector, _mm256_unpackhi_epi16(low_ab, low_cd));
    store_bytes(to + 2 * code_vector, _mm256_unpacklo_epi16(high_ab, high_cd));
    store_bytes(to + 3 * code_vector, _mm256_unpackhi_epi16(high_ab, high_cd));
}

void load_values(const CodedRows& rows, const char* block, const CodeTile& tile) {
    const CodeReader codes(rows, block);
    signed char* to = tile.values;
    for (std::int64_t channel = 0; channel < tile.value_bytes; channel += code_vector) {
        for (std::int64_t t = 0; t < most_tile_tokens; t += per_quad, to += value_quad_bytes) {
            interleave_quad(codes, t, channel / 2, to);
        }
    }
    load_value_scales(rows, block, tile.value_bytes, {tile.value_scale, tile.value_zero});
}

void load_page(const AttentionParams& params, const char* block, const CodeTile& tile) {
    std::int64_t column = 0;
    for (const CodedRows& part : params.sealed.keys) {
        load_keys(part, block, tile.keys + column * most_tile_tokens);
        load_key_scales(part, block, tile.scale + column, tile.zero + column);
        column += columns_of(part);
    }
    load_values(params.sealed.keys[0], block, tile);
}

}  // namespace
}  // namespace mha2mla::kernels
