#pragma once

#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/code_page_amx.h"

/// The arithmetic of code_attention_avx2.h, which explains it, in tile registers: with a query row in each lane up to
/// the probabilities, and in each row of a tile from there on. Included by *_amx.cpp, and of internal linkage, as
/// vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

template <int RowVectors>
struct RowsTimesCodes {
    static constexpr std::int64_t most_rows = RowVectors * Avx512::lanes;
    static constexpr std::int64_t word_bytes = most_rows * 4;  // from one word of all rows to the next

    /// The scaled queries of the block, column by column; zero where there is no row or no channel. Steps of columns
    /// that for_each_quad passes over stay zero.
    static void spread_queries(const AttentionParams& params, const RowBlock& block, const CodePage& page) {
        float* to = page.query;
        const float* q = params.q + block.first_row * params.q_stride;
        for (const CodedRows& part : params.sealed.keys) {
            for (std::int64_t column = 0; column < columns_of(part); ++column) {
                const std::int64_t channel = channel_of(part, column);
                for (std::int64_t row = 0; row < most_rows; ++row) {
                    const bool any = row < block.rows && channel < part.width;
                    *to++ = any ? q[row * params.q_stride + channel] * log2_scale(params) : 0;
                }
            }
            q += part.width;
        }
        __builtin_memset(page.query_steps, 0, static_cast<std::size_t>(page.columns * most_rows));
    }

    /// Queries for a page whose scales are loaded.
    static void fold_queries(const CodePage& page) {
        for (int v = 0; v < RowVectors; ++v) fold_queries(page, v);
    }

    /// Scores of keys that are loaded: [tokens][rows].
    static void score(const RowBlock& block, const CodePage& page) {
        multiply_keys(block, page);
        for (int v = 0; v < RowVectors; ++v) {
            const __m512 step = Avx512::load(page.query_step + v * 16), zero = Avx512::load(page.zero_score + v * 16);
            float* at = block.scores + v * 16;
            for (std::int64_t t = 0; t < most_tile_tokens; ++t, at += most_rows) {
                Avx512::store(at, Avx512::fma(_mm512_cvtepi32_ps(Avx512::load_words(at)), step, zero));
            }
        }
    }

    /// Scores to probabilities in bytes: [rows][64 tokens], in the place of the scores.
    static void find_probabilities(const RowBlock& block, const CodePage& page) {
        for (int v = 0; v < RowVectors; ++v) round_probabilities(block, page, v);
        for (int v = 0; v < RowVectors; ++v) {
            transpose_words(block.probabilities + v * tile_row_bytes, word_bytes, probabilities(block, v),
                            tile_row_bytes);
        }
    }

    /// Of values that are loaded.
    static void add_values(const RowBlock& block, const CodePage& page) {
        for (std::int64_t channel = 0; channel < page.channels; channel += value_group) {
            multiply_values(block, page, channel);
            for (std::int64_t row = 0; row < block.rows; ++row) add_scaled(block, page, row, channel);
        }
    }

private:
    /// Folds the channels' scales into the queries of 16 rows and rounds them. What rounding leaves meets the middle
    /// digit, as in code_attention_avx2.h.
    static void fold_queries(const CodePage& page, int v) {
        const float* const query = page.query + v * 16;
        __m512 most = Avx512::zero(), sum = Avx512::zero(), zeros = Avx512::zero();
        for_each_quad(page, [&](std::int64_t column) {
            __m512 quad_sum = Avx512::zero(), quad_zeros = Avx512::zero();
#pragma GCC unroll 4
            for (int i = 0; i < per_quad; ++i) {
                const __m512 q = Avx512::load(query + (column + i) * most_rows);
                const __m512 folded = Avx512::mul(q, Avx512::set(page.scale[column + i]));
                most = Avx512::max(most, _mm512_abs_ps(folded));
                quad_sum = Avx512::add(quad_sum, folded);
                quad_zeros = Avx512::fma(q, Avx512::set(page.zero[column + i]), quad_zeros);
            }
            sum = Avx512::add(sum, quad_sum);
            zeros = Avx512::add(zeros, quad_zeros);
        });
        const __m512 any = Avx512::div(Avx512::set(127), most);
        const __m512 steps = Avx512::where_greater(most, Avx512::zero(), any, Avx512::zero());
        const __m512i sum_of_steps = round_queries(page, v, steps);
        const __m512 step = Avx512::mul(most, Avx512::set(1.0F / 127));
        const __m512 lost = Avx512::sub(sum, Avx512::mul(step, _mm512_cvtepi32_ps(sum_of_steps)));
        constexpr float middle_digit = 7.5F;
        Avx512::store(page.query_step + v * 16, step);
        Avx512::store(page.zero_score + v * 16, Avx512::fma(lost, Avx512::set(middle_digit), zeros));
    }

    /// Returns the sum of each row's steps.
    static __m512i round_queries(const CodePage& page, int v, __m512 steps) {
        const float* const query = page.query + v * 16;
        std::int8_t* const to = page.query_steps + v * tile_row_bytes;
        __m512i sum = _mm512_setzero_si512();
        for_each_quad(page, [&](std::int64_t column) {
            __m512i quad = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int i = per_quad - 1; i >= 0; --i) {
                const __m512 q = Avx512::load(query + (column + i) * most_rows);
                const __m512 folded = Avx512::mul(q, Avx512::set(page.scale[column + i]));
                quad = append_byte(quad, rounded_product(folded, steps));
            }
            _mm512_store_si512(to + column * most_rows, quad);
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), quad);
        });
        return sum;
    }

    /// a * b, less than 2^22 in magnitude, to the nearest integer in the low bits: at this size floats are whole
    /// numbers.
    static __m512i rounded_product(__m512 a, __m512 b) {
        return _mm512_castps_si512(Avx512::fma(a, b, Avx512::set(0x1.8p23F)));
    }

    /// The low byte of each word of `word` before the bytes of `quad`.
    static __m512i append_byte(__m512i quad, __m512i word) {
        constexpr int first_or_second_and_third = 0xf8;
        return _mm512_ternarylogic_epi32(_mm512_slli_epi32(quad, 8), word, _mm512_set1_epi32(0xff),
                                         first_or_second_and_third);
    }

    static void multiply_keys(const RowBlock& block, const CodePage& page) {
        before_tiles_load();
        for (std::int64_t token = 0; token < most_tile_tokens; token += 32) {
            const auto* const keys = reinterpret_cast<const char*>(page.keys) + token * block_columns;
            const auto* const steps = reinterpret_cast<const char*>(page.query_steps);
            TilePair rows{keys, keys + 16 * block_columns, block_columns};
            TilePair query{steps, steps + tile_row_bytes, word_bytes};
            clear_sums();
            for (std::int64_t column = 0; column < page.columns; column += block_columns) {
                add_products<2, RowVectors, TileNumbers::unsigned_signed>(rows, query);
                rows = rows.ahead(most_tile_tokens * block_columns);
                query = query.ahead(16 * word_bytes);
            }
            float* const scores = block.scores + token * most_rows;
            float* const second_scores = scores + 16 * most_rows;
            _tile_stored(0, scores, word_bytes);
            if (RowVectors > 1) _tile_stored(1, scores + 16, word_bytes);
            _tile_stored(2, second_scores, word_bytes);
            if (RowVectors > 1) _tile_stored(3, second_scores + 16, word_bytes);
        }
    }

    /// Of 16 rows, in steps of the page's own largest, to [quads of tokens][rows][4]; the running maximum and sum go
    /// on.
    static void round_probabilities(const RowBlock& block, const CodePage& page, int v) {
        const float* const scores = block.scores + v * 16;
        const __m512 lowest = Avx512::set(-__builtin_inff());
        __m512 most = lowest;
        __mmask16 is_nan = 0;
        for (std::int64_t t = 0; t < most_tile_tokens; ++t) {
            const __m512 score = Avx512::load(scores + t * most_rows);
            most = Avx512::max(score, most);  // passes over NaN
            is_nan |= _mm512_cmp_ps_mask(score, score, _CMP_UNORD_Q);
        }
        const __m512 old_max = Avx512::load(block.max + v * 16), max = Avx512::max(old_max, most);
        // A row that has seen no key: any finite number makes all its probabilities zero.
        const __m512 reference = Avx512::where_greater(max, lowest, max, Avx512::zero());
        const __m512 own_reference = Avx512::where_greater(most, lowest, most, Avx512::zero());
        const __m512i whole_sum = round_exponentials(scores, own_reference, block.probabilities + v * tile_row_bytes);
        const __m512 sum_of_steps = _mm512_cvtepi32_ps(whole_sum);
        const __m512 largest = exp2_of<Avx512, 6>(Avx512::sub(most, reference));
        const __m512 step = _mm512_mask_mov_ps(Avx512::mul(largest, Avx512::set(1.0F / 255)), is_nan,
                                               Avx512::set(__builtin_nanf("")));  // stays visible
        const __m512 rescale = exp2_of<Avx512, 6>(Avx512::sub(old_max, reference));
        const __m512 sum_before = Avx512::mul(Avx512::load(block.sum + v * 16), rescale);
        Avx512::store(block.max + v * 16, max);
        Avx512::store(block.sum + v * 16, Avx512::fma(step, sum_of_steps, sum_before));
        Avx512::store(block.rescale + v * 16, rescale);
        Avx512::store(page.probability_step + v * 16, step);
        Avx512::store(page.probability_sum + v * 16, sum_of_steps);
    }

    /// 255 times 2^(score - reference) in bytes, quads of tokens. Returns their sums.
    static __m512i round_exponentials(const float* scores, __m512 reference, char* to) {
        constexpr int degree = 4;  // below the rounding
        __m512i sum = _mm512_setzero_si512();
        for (std::int64_t token = 0; token < most_tile_tokens; token += per_quad, to += word_bytes) {
            __m512i quad = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int i = per_quad - 1; i >= 0; --i) {
                const __m512 score = Avx512::load(scores + (token + i) * most_rows);
                const __m512 p = exp2_of<Avx512, degree>(Avx512::sub(score, reference));
                quad = append_byte(quad, rounded_product(p, Avx512::set(255)));
            }
            _mm512_store_si512(to, quad);
            sum = _mm512_dpbusd_epi32(sum, quad, _mm512_set1_epi8(1));
        }
        return sum;
    }

    static char* probabilities(const RowBlock& block, int v) {
        return reinterpret_cast<char*>(block.scores) + v * 16 * tile_row_bytes;
    }

    static void multiply_values(const RowBlock& block, const CodePage& page, std::int64_t channel) {
        const auto* const values = reinterpret_cast<const char*>(page.values) + channel * most_tile_tokens;
        constexpr std::int64_t stride = value_group * 4;
        before_tiles_load();
        clear_sums();
        add_products<RowVectors, 2, TileNumbers::all_unsigned>(
            {probabilities(block, 0), probabilities(block, 1), tile_row_bytes},
            {values, values + quad_tile_bytes, tile_row_bytes});
        _tile_stored(0, page.products, stride);
        _tile_stored(1, page.products + 16, stride);
        if (RowVectors == 1) return;
        _tile_stored(2, page.products + 16 * value_group, stride);
        _tile_stored(3, page.products + 16 * value_group + 16, stride);
    }

    /// sums = sums * rescale + probabilities . values, of a row's 32 channels.
    static void add_scaled(const RowBlock& block, const CodePage& page, std::int64_t row, std::int64_t channel) {
        const std::int32_t* const products = page.products + row * value_group;
        const __m512i even = Avx512::load_words(products), odd = Avx512::load_words(products + 16);
        const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
        const __m512i in_order[2] = {_mm512_permutex2var_epi32(even, low, odd),
                                     _mm512_permutex2var_epi32(even, high, odd)};
        const __m512 step = Avx512::set(page.probability_step[row]), sum = Avx512::set(page.probability_sum[row]);
        const __m512 rescale = Avx512::set(block.rescale[row]);
        for (int half = 0; half < 2; ++half) {
            const std::int64_t at = channel + half * 16;
            float* const sums = block.sums + row * block.parts.value_words + at;
            const __m512 zeros = Avx512::mul(Avx512::load(page.value_zero + at), sum);
            const __m512 values =
                Avx512::fma(_mm512_cvtepi32_ps(in_order[half]), Avx512::load(page.value_scale + at), zeros);
            Avx512::store(sums, Avx512::fma(values, step, Avx512::mul(Avx512::load(sums), rescale)));
        }
    }
};

}  // namespace
}  // namespace mha2mla::kernels
