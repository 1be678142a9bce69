#pragma once

#include "kernels/cpu/code_quads_avx512.h"

/// Attention of few rows over the codes of sealed pages: the query heads of a decode step, which would leave many lanes
/// of CodesInVectors empty. Included by *_avx512.cpp, and of internal linkage, as vector_avx2.h says.
///
/// Tokens lie in lanes up to the probabilities. Quads of a token's codes meet a row's folded query, whose step belongs
/// to the row and the part of the key (code_attention_avx2.h has one for both).
namespace mha2mla::kernels {
namespace {

constexpr int fold_rows_at_once = 5;  // as the loops below are unrolled

/// The largest magnitudes of folded queries, in lanes.
template <int Rows>
void find_most(const QuadPart& part, std::int64_t row, float* lanes) {
    const float* const query = part.query + row * part.channels;
    const std::int64_t channels = part.channels;
    __m512 most[Rows];
#pragma GCC unroll 5
    for (int r = 0; r < Rows; ++r) most[r] = Avx512::zero();
    for (std::int64_t i = 0; i < channels; i += Avx512::lanes) {
        const __m512 scale = Avx512::load(part.scale + i);
#pragma GCC unroll 5
        for (int r = 0; r < Rows; ++r) {
            const __m512 folded = Avx512::mul(Avx512::load(query + r * channels + i), scale);
            most[r] = Avx512::max(most[r], _mm512_abs_ps(folded));
        }
    }
#pragma GCC unroll 5
    for (int r = 0; r < Rows; ++r) Avx512::store(lanes + (row + r) * Avx512::lanes, most[r]);
}

/// Folds a page's scales into the queries of some rows and rounds them. What this adds to the zero scores goes to
/// `lanes`: the middle codes meet what rounding leaves, as in code_attention_avx2.h.
template <int Rows, bool has_digits>
void fold_rows(const QuadPart& part, std::int64_t row, float* lanes) {
    const __m128i quads = has_digits ? _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
                                     : _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const float* const query = part.query + row * part.channels;
    const float *const scales = part.scale, *const zero_codes = part.zero;
    char* const to = part.steps + row * part.channels;
    const std::int64_t channels = part.channels;
    __m512 steps_per_unit[Rows], sum[Rows], zeros[Rows];
    __m512i sum_of_steps[Rows];
#pragma GCC unroll 5
    for (int r = 0; r < Rows; ++r) {
        steps_per_unit[r] = Avx512::set(part.steps_per_unit[row + r]);
        sum[r] = zeros[r] = Avx512::zero();
        sum_of_steps[r] = _mm512_setzero_si512();
    }
    for (std::int64_t i = 0; i < channels; i += Avx512::lanes) {
        const __m512 scale = Avx512::load(scales + i), zero = Avx512::load(zero_codes + i);
#pragma GCC unroll 5
        for (int r = 0; r < Rows; ++r) {
            const __m512 q = Avx512::load(query + r * channels + i);
            const __m512 folded = Avx512::mul(q, scale);
            const __m512i steps = _mm512_cvtps_epi32(Avx512::mul(folded, steps_per_unit[r]));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + r * channels + i),
                             _mm_shuffle_epi8(_mm512_cvtepi32_epi8(steps), quads));
            sum[r] = Avx512::add(sum[r], folded);
            sum_of_steps[r] = _mm512_add_epi32(sum_of_steps[r], steps);
            zeros[r] = Avx512::fma(q, zero, zeros[r]);
        }
    }
#pragma GCC unroll 5
    for (int r = 0; r < Rows; ++r) {
        float* const of_row = lanes + (row + r) * Avx512::lanes;
        const __m512 rounded = Avx512::mul(Avx512::set(part.step[row + r]), _mm512_cvtepi32_ps(sum_of_steps[r]));
        const __m512 lost =
            Avx512::fma(Avx512::sub(sum[r], rounded), Avx512::set(has_digits ? 7.5F : 127.5F), zeros[r]);
        Avx512::store(of_row, Avx512::add(Avx512::load(of_row), lost));
    }
}

/// Steps of all folded queries: 127 to the largest of a row.
[[gnu::noinline]] void find_steps(const RowBlock& block, const QuadKeys& keys, const QuadPart& part) {
    for_each_rows<fold_rows_at_once>(block.rows,
                                     [&](std::int64_t row, auto rows) { find_most<rows()>(part, row, keys.lanes); });
    const __m512 largest = combine_lanes(keys.lanes, Avx512::max);
    Avx512::store(part.step, Avx512::mul(largest, Avx512::set(1.0F / 127)));
    Avx512::store(part.steps_per_unit, steps_per_unit(largest));
}

[[gnu::noinline]] void fold_queries(const RowBlock& block, const QuadKeys& keys) {
    clear_lanes(keys);
    for (const QuadPart& part : keys.parts) {
        for_each_rows<fold_rows_at_once>(block.rows, [&](std::int64_t row, auto rows) {
            part.has_digits ? fold_rows<rows(), true>(part, row, keys.lanes)
                            : fold_rows<rows(), false>(part, row, keys.lanes);
        });
    }
    Avx512::store(keys.zero_score, combine_lanes(keys.lanes, Avx512::add));
}

/// Attention of up to 16 rows over whole pages.
struct TokensInLanes {
    using Probabilities = ProbabilitiesInBytes<1>;
    static constexpr int vectors = most_tile_tokens / Avx512::lanes;

    static void load(const AttentionParams& params, const RowBlock& block) {
        lay_out(params, block);
        load_queries(params, block, quad_keys(block));
    }

    static void find_probabilities(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        const QuadKeys& keys = quad_keys(block);
        fetch_quarter(params, block, 0);
        for (const QuadPart& part : keys.parts) {
            load_scales(tile.keys, part);
            find_steps(block, keys, part);
        }
        for (const QuadPart& part : keys.parts) {
            part.has_digits ? load_quads<true>(tile.keys, part) : load_quads<false>(tile.keys, part);
        }
        fetch_quarter(params, block, 1);
        fold_queries(block, keys);
        fetch_quarter(params, block, 2);
        begin_scores(params, block, tile);
        for (const QuadPart& part : keys.parts) {
            for_each_rows<rows_at_once>(block.rows,
                                        [&](std::int64_t row, auto rows) { add_scores<rows()>(block, part, row); });
        }
        if (tile.first_key + most_tile_tokens > block.all_visible) mask_scores(block, tile);
        round_probabilities(block, keys);
    }

    static void add_values(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        fetch_quarter(params, block, 3);
        add_page_values<1>(block, quad_keys(block).values, {params.sealed.keys[0], tile.keys});
    }

private:
    static constexpr int rows_at_once = 6;  // times four vectors of sums

    static float* scores_of(const RowBlock& block, std::int64_t row) { return block.scores + row * most_tile_tokens; }

    /// The score of a key whose codes are zero, and the caller's logits.
    static void begin_scores(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        const float* bias = params.logit_bias == nullptr ? nullptr : logit_bias(params, block, tile);
        for (std::int64_t row = 0; row < block.rows; ++row) {
            const __m512 zero_score = Avx512::set(quad_keys(block).zero_score[row]);
            float* const scores = scores_of(block, row);
            for (std::int64_t t = 0; t < most_tile_tokens; t += Avx512::lanes) {
                const __m512 added = bias == nullptr ? Avx512::zero() : Avx512::load(bias + t);
                Avx512::store(scores + t, Avx512::fma(added, Avx512::set(log2_of_e), zero_score));
            }
            if (bias != nullptr) bias += params.logit_bias_stride;
        }
    }

    /// A quad adds 4 * 255 * 127 at most: 32 bits hold 16,577 of them.
    template <int Rows>
    [[gnu::noinline]] static void add_scores(const RowBlock& block, const QuadPart& part, std::int64_t row) {
        __m512i sums[Rows][vectors];
#pragma GCC unroll 6
        for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) sums[r][v] = _mm512_setzero_si512();
        }
        const char* steps = part.steps + row * part.channels;
        const char* codes = part.keys;
        for (std::int64_t quad = part.quads(); quad > 0; --quad, steps += per_quad) {
            __m512i of_tokens[vectors];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v, codes += quad_vector_bytes) of_tokens[v] = Avx512::load_words(codes);
#pragma GCC unroll 6
            for (int r = 0; r < Rows; ++r) {
                const __m512i of_row = Bf16Words::broadcast(steps + r * part.channels);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v) add_quads(sums[r][v], of_tokens[v], of_row);
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < Rows; ++r) {
            const __m512 step = Avx512::set(part.step[row + r]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) {
                float* const scores = scores_of(block, row + r) + v * Avx512::lanes;
                Avx512::store(scores, Avx512::fma(_mm512_cvtepi32_ps(sums[r][v]), step, Avx512::load(scores)));
            }
        }
    }

    /// Scores of keys that a row does not see become -inf.
    static void mask_scores(const RowBlock& block, const KeyTile& tile) {
        for (std::int64_t row = 0; row < block.rows; ++row) {
            float* const scores = scores_of(block, row);
            for (std::int64_t t = seen_tokens(block, tile, row); t < most_tile_tokens; ++t) {
                scores[t] = -__builtin_inff();
            }
        }
    }

    /// Scores to probabilities in bytes, [rows][64 tokens] in the place of the scores: a row's bytes lie where its own
    /// scores or those of a row before were. The running maximum and sum go on.
    [[gnu::noinline]] static void round_probabilities(const RowBlock& block, const QuadKeys& keys) {
        PageSums page;
        for (int row = 0; row < block.rows; ++row) {
            const float* const scores = scores_of(block, row);
            Avx512::store(keys.lanes + row * Avx512::lanes, most_of(scores));
            if (has_nan(scores)) page.is_nan = static_cast<__mmask16>(page.is_nan | 1 << row);
        }
        page.most = combine_lanes(keys.lanes, Avx512::max);
        Avx512::store(keys.reference, reference_of(page.most));
        for_each_rows<2>(block.rows, [&](std::int64_t row, auto rows) { round_rows<rows()>(block, keys, row); });
        page.steps = combine_lanes(keys.lanes, Avx512::add);
        add_page(block, keys.values, 0, page);
    }

    /// Passes over NaN.
    static __m512 most_of(const float* scores) {
        __m512 most = Avx512::set(-__builtin_inff());
        for (std::int64_t t = 0; t < most_tile_tokens; t += Avx512::lanes) {
            most = Avx512::max(Avx512::load(scores + t), most);
        }
        return most;
    }

    static bool has_nan(const float* scores) {
        const auto either = [&](std::int64_t t) {
            return _mm512_cmp_ps_mask(Avx512::load(scores + t), Avx512::load(scores + t + 16), _CMP_UNORD_Q);
        };
        return (either(0) | either(32)) != 0;
    }

    /// Scores of some rows less their references to probabilities in bytes. Their sums go to the lanes.
    template <int Rows>
    static void round_rows(const RowBlock& block, const QuadKeys& keys, std::int64_t row) {
        constexpr int count = Rows * vectors;
        __m512 x[count];
#pragma GCC unroll 8
        for (int i = 0; i < count; ++i) {
            const __m512 scores = Avx512::load(scores_of(block, row) + i * Avx512::lanes);
            x[i] = Avx512::sub(scores, Avx512::set(keys.reference[row + i / vectors]));
        }
        __m512i steps[count];
        rounded_powers(x, steps);
#pragma GCC unroll 2
        for (int r = 0; r < Rows; ++r) {
            const __m512i* const of_row = steps + r * vectors;
            const __m512i bytes =
                _mm512_packus_epi16(_mm512_packs_epi32(of_row[0], of_row[1]), _mm512_packs_epi32(of_row[2], of_row[3]));
            const __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), bytes, _mm512_set1_epi8(1));
            _mm512_store_si512(Probabilities::probabilities(block, 0) + (row + r) * quad_vector_bytes,
                               transpose_quads(bytes));
            Avx512::store(keys.lanes + (row + r) * Avx512::lanes, _mm512_cvtepi32_ps(sums));
        }
    }
};

}  // namespace
}  // namespace mha2mla::kernels
