#pragma once

#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"

/// bf16 attention of few rows: the query heads of a decode step. Included by *_avx512.cpp alone, and of internal
/// linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// Rows in quads. A vector holds four words (eight channels) of four rows, a 128-bit lane each; keys come in broadcast
/// lanes of eight channels. Up to twelve rows this takes fewer products and far fewer loads than a row in each 32-bit
/// lane would, for sums over four words at the end. Scores lie as [tokens / 4][quads][4 rows][4 tokens], probabilities
/// as [tokens / 2][quads][4 rows] words.
template <int Quads>
struct RowQuads {
    static constexpr std::int64_t most_rows = 4 * Quads;
    static constexpr int token_group = 8;
    static constexpr std::int64_t chunk = 8;  // channels of a 128-bit lane

    static void load(const AttentionParams& params, const RowBlock& block) {
        auto* words = reinterpret_cast<std::uint32_t*>(block.query);
        const std::int64_t chunks = round_up(params.key_width, chunk) / chunk;
        for (std::int64_t i = 0; i < chunks * Quads * 16; ++i) words[i] = 0;
        for (std::int64_t r = 0; r < most_rows; ++r) {
            const std::int64_t row = block.first_row + smaller(r, block.rows - 1);
            block.visible[r] = static_cast<float>(smaller(params.visible[row], block.end_key));
            const float* q = params.q + row * params.q_stride;
            for (std::int64_t i = 0; i < params.key_width; ++i) {
                const std::uint32_t bits = Bf16Words::rounded_bits(q[i] * log2_scale(params));
                words[(i / chunk * Quads * 4 + r) * 4 + i % chunk / 2] |= bits << (i % 2 * 16);
            }
        }
    }

    static constexpr auto read = Bf16Words::read;

    static void find_probabilities(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        const bool in_order = reads_in_order(block, tile);
        for (std::int64_t token = 0; token < tile.tokens; token += token_group) {
            if (in_order) {
                fetch(tile.values + token * tile.value_stride,
                      smaller(token_group, tile.tokens - token) * tile.value_stride);
            } else {
                fetch_ahead(params, block, token, token_group);
            }
            score_tokens(block, tile, token, params.key_width);
        }
        const bool whole = tile.tokens % token_group == 0;
        const bool masked = !whole || tile.first_key + tile.tokens > block.all_visible;
        for (int quad = 0; quad < Quads; ++quad) {
            if (params.logit_bias != nullptr) add_logit_bias(params, block, tile, quad);
            if (masked) mask_scores(block, tile, quad);
            softmax(block, tile, quad);
        }
    }

    static void add_values(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        const MemoryRange next{block.next.keys, block.next.tokens * block.next.key_stride};
        add_tile_values<Avx512, Bf16Words>(block, tile, params.value_width,
                                           reads_in_order(block, tile) ? next : MemoryRange{});
    }

private:
    /// Keys and values apart, exact ones: values are asked for while their keys are multiplied, and the next tile's
    /// keys while the values are.
    static bool reads_in_order(const RowBlock& block, const KeyTile& tile) {
        return !tile.is_latent() && tile.keys != block.keys && !block.next.sealed;
    }

    // From one value a row to the layout of scores, and back to four values.
    static __m512 spread(const float* rows) {
        const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        return _mm512_permutexvar_ps(lane, _mm512_castps128_ps512(_mm_loadu_ps(rows)));
    }
    static __m128 gather(__m512 rows) {
        const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
        return _mm512_castps512_ps128(_mm512_permutexvar_ps(first, rows));
    }

    // Of tokens [token, token + 4), token a multiple of four.
    static float* scores_of(const RowBlock& block, std::int64_t token, int quad) {
        return block.scores + (token / 4 * Quads + quad) * 16;
    }

    // Eight channels of every row times eight channels of every token. Always inlined: the sums stay in registers.
    __attribute__((always_inline)) static void multiply_chunk(const char* query, const __m128i (&keys)[token_group],
                                                              __m512 (&sums)[token_group][Quads]) {
        __m512i rows[Quads];
#pragma GCC unroll 3
        for (int quad = 0; quad < Quads; ++quad) rows[quad] = Bf16Words::load(query + quad * 64);
#pragma GCC unroll 8
        for (int t = 0; t < token_group; ++t) {
            const __m512i key = _mm512_broadcast_i32x4(keys[t]);
#pragma GCC unroll 3
            for (int quad = 0; quad < Quads; ++quad) sums[t][quad] = Bf16Words::dot(sums[t][quad], rows[quad], key);
        }
    }

    static void score_tokens(const RowBlock& block, const KeyTile& tile, std::int64_t token, std::int64_t key_width) {
        const char* keys[token_group];
        // Beyond the tile's end: the last token again; its scores are masked.
        for (int t = 0; t < token_group; ++t) {
            keys[t] = tile.keys + smaller(token + t, tile.tokens - 1) * tile.key_stride;
        }
        __m512 sums[token_group][Quads];
        for (auto& of_token : sums) {
            for (__m512& sum : of_token) sum = Avx512::zero();
        }
        const char* query = block.query;
        std::int64_t i = 0;
        for (; i + chunk <= key_width; i += chunk, query += Quads * 64) {
            __m128i channels[token_group];
#pragma GCC unroll 8
            for (int t = 0; t < token_group; ++t) {
                channels[t] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(keys[t] + i * 2));
            }
            multiply_chunk(query, channels, sums);
        }
        if (i < key_width) {
            const auto mask = static_cast<__mmask8>((1 << (key_width - i)) - 1);
            __m128i channels[token_group];
            for (int t = 0; t < token_group; ++t) channels[t] = _mm_maskz_loadu_epi16(mask, keys[t] + i * 2);
            multiply_chunk(query, channels, sums);
        }
#pragma GCC unroll 3
        for (int quad = 0; quad < Quads; ++quad) {
            Avx512::store(scores_of(block, token, quad),
                          combine_words({sums[0][quad], sums[1][quad], sums[2][quad], sums[3][quad]}, Avx512::add));
            Avx512::store(scores_of(block, token + 4, quad),
                          combine_words({sums[4][quad], sums[5][quad], sums[6][quad], sums[7][quad]}, Avx512::add));
        }
    }

    // Adds the caller's logits. Rows of the quad that do not exist take those of the last.
    static void add_logit_bias(const AttentionParams& params, const RowBlock& block, const KeyTile& tile, int quad) {
        const float* const of_tile = logit_bias(params, block, tile);
        const float* bias[4];
        for (int r = 0; r < 4; ++r) {
            bias[r] = of_tile + smaller(quad * 4 + r, block.rows - 1) * params.logit_bias_stride;
        }
        for (std::int64_t t = 0; t < tile.tokens; t += 4) {
            const auto mask = static_cast<__mmask8>((1 << smaller(tile.tokens - t, 4)) - 1);
            const __m256 low =
                _mm256_set_m128(_mm_maskz_loadu_ps(mask, bias[1] + t), _mm_maskz_loadu_ps(mask, bias[0] + t));
            const __m256 high =
                _mm256_set_m128(_mm_maskz_loadu_ps(mask, bias[3] + t), _mm_maskz_loadu_ps(mask, bias[2] + t));
            const __m512 of_rows = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
            float* scores = scores_of(block, t, quad);
            Avx512::store(scores, Avx512::fma(of_rows, Avx512::set(log2_of_e), Avx512::load(scores)));
        }
    }

    // Scores of keys that a row does not see, and those beyond the tile's end up to a whole group, become -inf.
    static void mask_scores(const RowBlock& block, const KeyTile& tile, int quad) {
        const __m512 visible = spread(block.visible + quad * 4);
        const __m512 end = Avx512::set(static_cast<float>(tile.first_key + tile.tokens));
        const __m512 limit = Avx512::min(visible, end);
        const __m512 token = _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
        for (std::int64_t t = 0; t < round_up(tile.tokens, token_group); t += 4) {
            const __m512 key = Avx512::add(token, Avx512::set(static_cast<float>(tile.first_key + t)));
            float* scores = scores_of(block, t, quad);
            Avx512::store(scores, Avx512::where_greater(limit, key, Avx512::load(scores), lowest()));
        }
    }

    static __m512 max_of_tokens(const RowBlock& block, std::int64_t tokens, int quad) {
        __m512 max = lowest();
        for (std::int64_t t = 0; t < tokens; t += 4) max = Avx512::max(max, Avx512::load(scores_of(block, t, quad)));
        max = Avx512::max(max, _mm512_permute_ps(max, 0xb1));
        return Avx512::max(max, _mm512_permute_ps(max, 0x4e));
    }

    static void softmax(const RowBlock& block, const KeyTile& tile, int quad) {
        const std::int64_t tokens = round_up(tile.tokens, token_group);
        const __m512 old_max = spread(block.max + quad * 4);
        const __m512 max = Avx512::max(old_max, max_of_tokens(block, tokens, quad));
        // A row that has seen no key yet: any finite number makes all its probabilities zero.
        const __m512 reference = Avx512::where_greater(max, lowest(), max, Avx512::zero());
        __m512 sum = Avx512::zero();
        for (std::int64_t t = 0; t < tokens; t += token_group) {
            const __m512 p0 = exp2(Avx512::sub(Avx512::load(scores_of(block, t, quad)), reference));
            const __m512 p1 = exp2(Avx512::sub(Avx512::load(scores_of(block, t + 4, quad)), reference));
            // [2][4 rows][2 words] to [4 words][4 rows].
            const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
            const __m512i words = _mm512_permutexvar_epi32(order, Avx512::to_bf16(p0, p1));
            store_words(block.probabilities + (t / 2 * Quads + quad) * 16, words);
            sum = Bf16Words::dot(sum, words, Bf16Words::ones());
        }
        const __m128 rescale = gather(exp2(Avx512::sub(old_max, reference)));
        float* old_sum = block.sum + quad * 4;
        _mm_storeu_ps(old_sum, _mm_fmadd_ps(_mm_loadu_ps(old_sum), rescale, sum_of_words(sum)));
        _mm_storeu_ps(block.rescale + quad * 4, rescale);
        _mm_storeu_ps(block.max + quad * 4, gather(max));
    }

    // Four rows of four words, the words as far apart as the layout of probabilities has them.
    static void store_words(char* at, __m512i words) {
        constexpr std::int64_t word_bytes = Quads * 16;
        _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm512_castsi512_si128(words));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(at + word_bytes), _mm512_extracti32x4_epi32(words, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(at + 2 * word_bytes), _mm512_extracti32x4_epi32(words, 2));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(at + 3 * word_bytes), _mm512_extracti32x4_epi32(words, 3));
    }

    static __m128 sum_of_words(__m512 sum) {
        const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
        return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    }

    static __m512 exp2(__m512 x) { return exp2_of<Avx512, Bf16Words::exp_degree>(x); }
    static __m512 lowest() { return Avx512::set(-__builtin_inff()); }
};

}  // namespace
}  // namespace mha2mla::kernels
