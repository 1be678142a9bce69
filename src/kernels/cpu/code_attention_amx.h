#pragma once

#include "kernels/cpu/code_page_amx.h"
#include "kernels/cpu/tiles_amx.h"

/// The arithmetic of code_attention_avx2.h, which explains it, in tile registers: a policy of code_rows_avx512.h.
/// Included by *_amx.cpp, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

template <int RowVectors>
struct CodesInTiles {
    using Probabilities = ProbabilitiesInBytes<RowVectors>;
    static constexpr std::int64_t most_rows = Probabilities::most_rows, word_bytes = Probabilities::word_bytes;

    static void load(const AttentionParams& params, const RowBlock& block) {
        spread_queries(params, block, code_page_of(params, block));
    }

    static void find_probabilities(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        const CodePage page = code_page_of(params, block);
        fetch_quarter(params, block, 0);
        load_key_scales(params, tile.keys, page);
        for (int v = 0; v < RowVectors; ++v) fold_queries(page, v);
        load_keys(params, tile.keys, page);
        fetch_quarter(params, block, 1);
        score(block, page);
        fetch_quarter(params, block, 2);
        RowsInLanes<Avx512, Bf16Words, RowVectors>::finish_scores(params, block, tile);
        fetch_quarter(params, block, 3);
        Probabilities::find_probabilities(block, page.values);
    }

    static void add_values(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        const CodePage page = code_page_of(params, block);
        load_values(params.sealed.keys[0], tile.keys, page.values);
        for (std::int64_t channel = 0; channel < page.values.channels; channel += value_group) {
            multiply_values(block, page, channel);
            add_scaled_products(block, page, channel);
        }
    }

private:
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
        const __m512i sum_of_steps = round_queries(page, v, steps_per_unit(most));
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

    static void load_values(const CodedRows& latents, const char* cached, const CodeValues& values) {
        const CodeReader codes(latents, cached);
        std::uint8_t* to = values.values;
        for (std::int64_t channel = 0; channel < values.channels; channel += value_group, to += 2 * half_group_bytes) {
            load_value_group(codes, channel, to);
        }
        load_value_scales(latents, cached, values.channels, {values.scale, values.zero});
    }

    static void add_scaled_products(const RowBlock& block, const CodePage& page, std::int64_t channel) {
        const ValueGroup group = value_group_at(page.values, channel);
        const std::int32_t* products = page.products;
        for (std::int64_t row = 0; row < block.rows; ++row, products += value_group) {
            add_scaled(block, page.values, group, row,
                       {Avx512::load_words(products), Avx512::load_words(products + 16)});
        }
    }

    static void multiply_values(const RowBlock& block, const CodePage& page, std::int64_t channel) {
        const auto* const from = reinterpret_cast<const char*>(page.values.values) + channel * most_tile_tokens;
        constexpr std::int64_t stride = value_group * 4;
        before_tiles_load();
        clear_sums();
        add_products<RowVectors, 2, TileNumbers::all_unsigned>(
            {Probabilities::probabilities(block, 0), Probabilities::probabilities(block, 1), tile_row_bytes},
            {from, from + half_group_bytes, tile_row_bytes});
        _tile_stored(0, page.products, stride);
        _tile_stored(1, page.products + 16, stride);
        if (RowVectors == 1) return;
        _tile_stored(2, page.products + 16 * value_group, stride);
        _tile_stored(3, page.products + 16 * value_group + 16, stride);
    }
};

}  // namespace
}  // namespace mha2mla::kernels
