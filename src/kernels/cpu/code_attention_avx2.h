#pragma once

#include "kernels/cpu/code_page_avx2.h"

/// Attention that multiplies the codes of sealed pages themselves, on AVX2. Since scales belong to channels, both
/// products are plain sums of integers with the scales outside:
///
///   q . k_t        = sum of zero_c q_c + sum of (scale_c q_c) code_tc    over the channels c
///   sum of p_t v_t = zero_c (sum of p_t) + scale_c (sum of p_t code_tc)  over the tokens t
///
/// The folded query scale_c q_c is rounded to 8 signed bits, one step a row and page; probabilities to 8 unsigned bits,
/// likewise. An instruction multiplies 32 pairs of bytes and adds neighbours up in 16 bits, four times the rate of
/// floats; 16-bit sums become 32-bit ones before they can overflow.
namespace mha2mla::kernels {
namespace {

/// 32 floats times a factor, rounded to bytes; `Pack` saturates words to bytes with or without sign.
template <class Pack>
__m256i rounded_bytes(const float* x, __m256 factor, const Pack& pack) {
    __m256i whole[4];
    for (int v = 0; v < 4; ++v) whole[v] = _mm256_cvtps_epi32(Avx2::mul(Avx2::load(x + v * 8), factor));
    const __m256i bytes = pack(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/// Folds the channels' scales into the query of a row and rounds it.
void fold_query(const CodeTile& tile, std::int64_t row) {
    const float* query = tile.query + row * tile.key_bytes;
    const __m256 sign = Avx2::set(-0.0F);
    __m256 most = Avx2::zero();
    __m256 zeros = Avx2::zero();
    for (std::int64_t i = 0; i < tile.key_bytes; i += 8) {
        const __m256 q = Avx2::load(query + i);
        const __m256 folded = Avx2::mul(q, Avx2::load(tile.scale + i));
        Avx2::store(tile.folded + i, folded);
        most = Avx2::max(most, _mm256_andnot_ps(sign, folded));
        zeros = Avx2::fma(q, Avx2::load(tile.zero + i), zeros);
    }
    const float largest = max_of(most);
    tile.query_step[row] = largest / 127;
    tile.zero_score[row] = Avx2::sum(zeros);
    const __m256 steps = Avx2::set(largest > 0 ? 127 / largest : 0);
    const auto pack = [](__m256i a, __m256i b) { return _mm256_packs_epi16(a, b); };
    for (std::int64_t i = 0; i < tile.key_bytes; i += code_vector) {
        store_bytes(tile.query_steps + row * tile.key_bytes + i, rounded_bytes(tile.folded + i, steps, pack));
    }
}

/// Bytes that a 16-bit sum of products of codes with query bytes may span: 8 vectors of 2 * 15 * 127 each.
constexpr std::int64_t key_run = 8 * code_vector;

__m256i widened_sums(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

/// The sums of the lanes of four vectors.
__m128i sums_of(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    const __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    const __m256i halves = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}

/// Adds codes times queries of `Rows` rows and four tokens, over a run of channels.
template <int Rows>
void add_key_run(const unsigned char* keys, const signed char* query, std::int64_t stride, std::int64_t bytes,
                 __m256i (&sums)[Rows][quad_tokens]) {
    __m256i run[Rows][quad_tokens];
    for (auto& of_row : run) {
        for (__m256i& sum : of_row) sum = _mm256_setzero_si256();
    }
    for (std::int64_t i = 0; i < bytes; i += code_vector) {
        __m256i q[Rows];
#pragma GCC unroll 2
        for (int r = 0; r < Rows; ++r) q[r] = Avx2::load_words(query + r * stride + i);
#pragma GCC unroll 4
        for (int t = 0; t < quad_tokens; ++t) {
            const __m256i key = Avx2::load_words(keys + t * stride + i);
#pragma GCC unroll 2
            for (int r = 0; r < Rows; ++r) {
                run[r][t] = _mm256_add_epi16(run[r][t], _mm256_maddubs_epi16(key, q[r]));
            }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
        for (int t = 0; t < quad_tokens; ++t) {
            sums[r][t] = _mm256_add_epi32(sums[r][t], widened_sums(run[r][t]));
        }
    }
}

/// Scores of `Rows` rows and four tokens.
template <int Rows>
void score_codes(const RowBlock& block, const CodeTile& tile, std::int64_t row, std::int64_t token) {
    __m256i sums[Rows][quad_tokens];
    for (auto& of_row : sums) {
        for (__m256i& sum : of_row) sum = _mm256_setzero_si256();
    }
    const unsigned char* keys = tile.keys + token * tile.key_bytes;
    const signed char* query = tile.query_steps + row * tile.key_bytes;
    for (std::int64_t i = 0; i < tile.key_bytes; i += key_run) {
        add_key_run<Rows>(keys + i, query + i, tile.key_bytes, smaller(key_run, tile.key_bytes - i), sums);
    }
#pragma GCC unroll 2
    for (int r = 0; r < Rows; ++r) {
        const __m128i products = sums_of(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
        const __m128 scores = _mm_fmadd_ps(_mm_cvtepi32_ps(products), _mm_set1_ps(tile.query_step[row + r]),
                                           _mm_set1_ps(tile.zero_score[row + r]));
        _mm_storeu_ps(scores_of(block, row + r) + token, scores);
    }
}

void score_code_tile(const AttentionParams& params, const RowBlock& block, const CodeTile& tile) {
    for (std::int64_t row = 0; row < block.rows; ++row) fold_query(tile, row);
    for (std::int64_t token = 0; token < most_tile_tokens; token += quad_tokens) {
        fetch_ahead(params, block, token, quad_tokens);
        std::int64_t row = 0;
        for (; row + 2 <= block.rows; row += 2) score_codes<2>(block, tile, row, token);
        if (row < block.rows) score_codes<1>(block, tile, row, token);
    }
}

/// Rounds the probabilities of a row to bytes, in steps of the page's own. Returns their sum.
float round_probabilities(const RowBlock& block, const CodeTile& tile, std::int64_t row) {
    const float* p = scores_of(block, row);
    __m256 largest = Avx2::zero();
    for (std::int64_t t = 0; t < most_tile_tokens; t += 8) largest = Avx2::max(largest, Avx2::load(p + t));
    const float max = max_of(largest);
    const __m256 steps = Avx2::set(max > 0 ? 255 / max : 0);
    const auto pack = [](__m256i a, __m256i b) { return _mm256_packus_epi16(a, b); };
    __m256i sum = _mm256_setzero_si256();
    for (std::int64_t t = 0; t < most_tile_tokens; t += code_vector) {
        const __m256i bytes = rounded_bytes(p + t, steps, pack);
        store_bytes(tile.probabilities + row * most_tile_tokens + t, bytes);
        sum = _mm256_add_epi64(sum, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
    }
    const auto steps_in_all = _mm256_extract_epi64(sum, 0) + _mm256_extract_epi64(sum, 1) +
                              _mm256_extract_epi64(sum, 2) + _mm256_extract_epi64(sum, 3);
    tile.probability_step[row] = max / 255;
    tile.probability_sum[row] = static_cast<float>(steps_in_all);
    return tile.probability_step[row] * tile.probability_sum[row];
}

/// Quads of tokens that a 16-bit sum of products of values with probabilities may span: 2 * 8 * 255 each.
constexpr std::int64_t value_run = 8;
constexpr int value_vectors = 2;  // at a time: 16 channels

/// Adds the products of `Rows` rows and 16 channels over a run of quads.
template <int Rows>
void add_value_run(const unsigned char* probabilities, const unsigned char* quads,
                   __m256i (&sums)[Rows][value_vectors]) {
    __m256i run[Rows][value_vectors];
    for (auto& of_row : run) {
        for (__m256i& sum : of_row) sum = _mm256_setzero_si256();
    }
#pragma GCC unroll 1
    for (std::int64_t quad = 0; quad < value_run; ++quad, quads += quad_bytes) {
        const __m256i values[value_vectors] = {Avx2::load_words(quads), Avx2::load_words(quads + code_vector)};
#pragma GCC unroll 3
        for (int r = 0; r < Rows; ++r) {
            int four = 0;
            std::memcpy(&four, probabilities + r * most_tile_tokens + quad * quad_tokens, sizeof four);
            const __m256i p = _mm256_set1_epi32(four);
#pragma GCC unroll 2
            for (int v = 0; v < value_vectors; ++v) {
                run[r][v] = _mm256_add_epi16(run[r][v], _mm256_maddubs_epi16(p, values[v]));
            }
        }
    }
#pragma GCC unroll 3
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < value_vectors; ++v) {
            sums[r][v] = _mm256_add_epi32(sums[r][v], widened_sums(run[r][v]));
        }
    }
}

/// Eight channels of a row: sums = sums * rescale + probabilities . values.
void add_scaled(const RowBlock& block, const CodeTile& tile, std::int64_t row, std::int64_t channel, __m256i products) {
    float* at = block.sums + row * block.parts.value_words + channel;
    const __m256 scale = Avx2::load(tile.scale + channel);
    const __m256 middle = Avx2::fma(scale, Avx2::set(middle_digit), Avx2::load(tile.zero + channel));
    const __m256 middles = Avx2::mul(middle, Avx2::set(tile.probability_sum[row]));
    const __m256 steps = Avx2::fma(_mm256_cvtepi32_ps(products), scale, middles);
    const __m256 before = Avx2::mul(Avx2::load(at), Avx2::set(block.rescale[row]));
    Avx2::store(at, Avx2::fma(steps, Avx2::set(tile.probability_step[row]), before));
}

/// Rows times the 16 channels of two vectors: of 32 channels, 8 of the first half and 8 of the second.
template <int Rows>
void add_codes(const RowBlock& block, const CodeTile& tile, std::int64_t row, std::int64_t first, std::int64_t half) {
    __m256i sums[Rows][value_vectors];
    for (auto& of_row : sums) {
        for (__m256i& sum : of_row) sum = _mm256_setzero_si256();
    }
    const unsigned char* probabilities = tile.probabilities + row * most_tile_tokens;
    const unsigned char* quads = tile.values + first * most_tile_tokens + half * value_vectors * code_vector;
    for (std::int64_t t = 0; t < most_tile_tokens; t += value_run * quad_tokens) {
        add_value_run<Rows>(probabilities + t, quads + t * code_vector, sums);
    }
    const std::int64_t channel = first + half * 8;
#pragma GCC unroll 3
    for (int r = 0; r < Rows; ++r) {
        add_scaled(block, tile, row + r, channel, _mm256_permute2x128_si256(sums[r][0], sums[r][1], 0x20));
        add_scaled(block, tile, row + r, channel + 16, _mm256_permute2x128_si256(sums[r][0], sums[r][1], 0x31));
    }
}

void add_code_values(const RowBlock& block, const CodeTile& tile) {
    for (std::int64_t first = 0; first < tile.value_bytes; first += code_vector) {
        for (std::int64_t half = 0; half < 2; ++half) {
            for_each_rows(block.rows,
                          [&](std::int64_t row, auto rows) { add_codes<rows()>(block, tile, row, first, half); });
        }
    }
}

/// One page for all rows of the block.
void attend_code_tile(const AttentionParams& params, const RowBlock& block, const CodeTile& tile,
                      const KeyTile& cached) {
    load_page(params, cached.keys, tile);
    score_code_tile(params, block, tile);
    softmax_tile(params, block, cached, [&](std::int64_t row, float) { return round_probabilities(block, tile, row); });
    add_code_values(block, tile);
}

}  // namespace
}  // namespace mha2mla::kernels
