#pragma once

#include "kernels/cpu/float_attention_avx2.h"

/// Attention of few query rows over exact bf16 rows on AVX2: what the plain cache of grouped-query attention asks for
/// in decode. There is so little to compute with each number that storing it as a float first would take longer than
/// reading it from memory; so numbers are widened in registers, each time they are used.
///
/// A load of 32 bytes holds 16 channels. A shift makes floats of its even channels, a mask of its odd ones. Hence
/// queries lie as [key_width / 16][even, odd][rows][8], behind those in plain order, which other tiles use. Sums of
/// values have even and odd channels apart in registers and go back to plain order with every tile.
///
/// Memory is asked for in the order of its addresses, a little with each step, so that reading never pauses: values
/// during the scores, the next tile's keys during the values. The functions of the inner loops are not inlined:
/// constants of other loops would take their registers.
namespace mha2mla::kernels {
namespace {

constexpr std::int64_t most_few_rows = 4;
constexpr std::int64_t split_channels = 16;

bool takes_few_rows(const AttentionParams& params) {
    return params.dtype == core::DType::bf16 && params.rows <= most_few_rows &&
           params.key_width % split_channels == 0 && params.value_width % split_channels == 0;
}

float* split_query(const AttentionParams& params, const RowBlock& block) {
    return reinterpret_cast<float*>(block.query) + most_few_rows * query_floats(params);
}

/// Even and odd channels of the queries that load_queries() packed.
void split_queries(const AttentionParams& params, const RowBlock& block) {
    const auto* query = reinterpret_cast<const float*>(block.query);
    float* split = split_query(params, block);
    for (std::int64_t r = 0; r < block.rows; ++r, query += query_floats(params)) {
        for (std::int64_t i = 0; i < params.key_width; ++i) {
            const std::int64_t half = i / split_channels * 2 + i % 2;
            split[(half * block.rows + r) * 8 + i % split_channels / 2] = query[i];
        }
    }
}

/// sums += the products of `Rows` queries and `Tokens` keys on the even or the odd ones of 16 channels.
template <int Rows, int Tokens>
void add_products(const float* query, const __m256 (&keys)[Tokens], __m256 (&sums)[Rows][Tokens]) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
        const __m256 q = Avx2::load(query + r * 8);
#pragma GCC unroll 4
        for (int t = 0; t < Tokens; ++t) sums[r][t] = Avx2::fma(q, keys[t], sums[r][t]);
    }
}

/// Writes four scores a row whatever `Tokens` is: the others are written later, or nobody reads them.
template <int Rows, int Tokens>
void store_scores(const __m256 (&sums)[Rows][Tokens], float* scores) {
    constexpr int last = Tokens - 1;
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
        const auto& s = sums[r];
        _mm_storeu_ps(scores + r * score_stride, sums_of(s[0], s[1], s[last < 2 ? last : 2], s[last]));
    }
}

/// Scores of `Rows` rows and `Tokens` tokens.
template <int Rows, int Tokens>
void score_split(const float* query, std::int64_t width, const char* const (&keys)[Tokens], float* scores) {
    __m256 sums[Rows][Tokens];
    for (auto& of_row : sums) {
        for (__m256& sum : of_row) sum = Avx2::zero();
    }
    for (std::int64_t i = 0; i < width; i += split_channels, query += split_channels * Rows) {
        __m256 half[Tokens];
#pragma GCC unroll 4
        for (int t = 0; t < Tokens; ++t) half[t] = Avx2::even_bf16(Avx2::load_words(keys[t] + 2 * i));
        add_products<Rows, Tokens>(query, half, sums);
#pragma GCC unroll 4
        for (int t = 0; t < Tokens; ++t) half[t] = Avx2::odd_bf16(Avx2::load_words(keys[t] + 2 * i));
        add_products<Rows, Tokens>(query + 8 * Rows, half, sums);
    }
    store_scores<Rows, Tokens>(sums, scores);
}

template <int Rows>
[[gnu::noinline]] void score_split_tile(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
    // Sums that fit in registers beside the operands.
    constexpr int tokens = Rows <= 2 ? 4 : Rows == 3 ? 3 : 2;
    const float* query = split_query(params, block);
    for (std::int64_t token = 0; token < tile.tokens; token += tokens) {
        fetch(tile.values + token * tile.value_stride, tokens * tile.value_stride);
        const char* keys[tokens];
        // Beyond the tile's end: the last token again, whose scores nobody reads.
        for (int t = 0; t < tokens; ++t) keys[t] = tile.keys + smaller(token + t, tile.tokens - 1) * tile.key_stride;
        score_split<Rows>(query, params.key_width, keys, block.scores + token);
    }
}

/// sums = sums * rescale + the even and odd ones of 16 channels.
void add_split(float* sums, __m256 rescale, __m256 even, __m256 odd) {
    const __m256 low = _mm256_unpacklo_ps(even, odd);  // channels 0 to 3, 8 to 11
    const __m256 high = _mm256_unpackhi_ps(even, odd);
    Avx2::store(sums, Avx2::fma(Avx2::load(sums), rescale, _mm256_permute2f128_ps(low, high, 0x20)));
    Avx2::store(sums + 8, Avx2::fma(Avx2::load(sums + 8), rescale, _mm256_permute2f128_ps(low, high, 0x31)));
}

/// Rows times 16 * Parts channels: sums = sums * rescale + probabilities . values. Asks for as many bytes from `ahead`
/// on as it reads.
template <int Rows, int Parts>
[[gnu::noinline]] void add_split_values(const RowBlock& block, const KeyTile& tile, std::int64_t channel,
                                        const char* ahead) {
    constexpr std::int64_t bytes = Parts * split_channels * 2;
    __m256 even[Rows][Parts], odd[Rows][Parts];
    for (int r = 0; r < Rows; ++r) {
        for (int v = 0; v < Parts; ++v) even[r][v] = odd[r][v] = Avx2::zero();
    }
    const char* values = tile.values + 2 * channel;
    for (std::int64_t t = 0; t < tile.tokens; ++t, values += tile.value_stride, ahead += bytes) {
        fetch(ahead, bytes);
        __m256 probability[Rows];
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) probability[r] = Avx2::set(block.scores[r * score_stride + t]);
#pragma GCC unroll 4
        for (int v = 0; v < Parts; ++v) {
            const __m256i words = Avx2::load_words(values + v * 2 * split_channels);
            const __m256 even_value = Avx2::even_bf16(words), odd_value = Avx2::odd_bf16(words);
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) {
                even[r][v] = Avx2::fma(probability[r], even_value, even[r][v]);
                odd[r][v] = Avx2::fma(probability[r], odd_value, odd[r][v]);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
        float* sums = block.sums + r * block.parts.value_words + channel;
#pragma GCC unroll 4
        for (int v = 0; v < Parts; ++v) {
            add_split(sums + v * split_channels, Avx2::set(block.rescale[r]), even[r][v], odd[r][v]);
        }
    }
}

template <int Rows>
void add_split_values_of_tile(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
    constexpr int parts = Rows == 1 ? 4 : Rows == 2 ? 2 : 1;
    const bool has_next = block.next.tokens > 0 && !block.next.sealed;
    const char* ahead = has_next ? block.next.keys : tile.keys;  // the latter are near
    std::int64_t channel = 0;
    const auto add = [&](auto count) {
        add_split_values<Rows, count()>(block, tile, channel, ahead);
        channel += count() * split_channels;
        ahead += tile.tokens * count() * split_channels * 2;
    };
    while (channel + parts * split_channels <= params.value_width) add(std::integral_constant<int, parts>());
    while (channel < params.value_width) add(std::integral_constant<int, 1>());
}

template <int Rows>
void attend_split_tile(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
    score_split_tile<Rows>(params, block, tile);
    softmax_tile(params, block, tile, unrounded);
    add_split_values_of_tile<Rows>(params, block, tile);
}

void attend_few_rows_tile(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
    switch (block.rows) {
        case 1: return attend_split_tile<1>(params, block, tile);
        case 2: return attend_split_tile<2>(params, block, tile);
        case 3: return attend_split_tile<3>(params, block, tile);
        default: return attend_split_tile<4>(params, block, tile);
    }
}

}  // namespace
}  // namespace mha2mla::kernels
