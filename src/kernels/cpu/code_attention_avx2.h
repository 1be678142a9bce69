#pragma once

#include "kernels/cpu/code_page_avx2.h"

/// Attention that multiplies the codes of sealed pages themselves. Since scales belong to channels,
/// both products are plain sums of integers with the scales outside:
///
///   q . k_t        = sum of zero_c q_c + sum of (scale_c q_c) code_tc    over the channels c
///   sum of p_t v_t = zero_c (sum of p_t) + scale_c (sum of p_t code_tc)  over the tokens t
///
/// The folded query scale_c q_c is rounded to 8 signed bits, one step a row and page; probabilities to 8 unsigned bits,
/// likewise. Instructions that multiply bytes and add neighbours up have four times the rate of floats.
namespace mha2mla::kernels {
namespace {

/// 32 floats times a factor, rounded to bytes; `pack` saturates words to bytes with or without sign.
template <class Pack>
__m256i rounded_bytes(const float* x, __m256 factor, const Pack& pack) {
    __m256i whole[4];
    for (int v = 0; v < 4; ++v) whole[v] = _mm256_cvtps_epi32(Avx2::mul(Avx2::load(x + v * 8), factor));
    const __m256i bytes = pack(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/// The sum of 32 signed bytes, in words.
__m256i sum_of_bytes(__m256i bytes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1));
}

/// Folds the channels' scales into the query of a row and rounds it. What rounding leaves would meet digits whose mean
/// is far from zero, so that all scores of a page would be off alike; it meets the middle digit instead, and only
/// the digits' distances from it are lost.
void fold_query(const CodeTile& tile, std::int64_t row) {
    const float* query = tile.query + row * tile.column_stride;
    const __m256 sign = Avx2::set(-0.0F);
    __m256 most = Avx2::zero();
    __m256 zeros = Avx2::zero();
    __m256 sum = Avx2::zero();
    for (std::int64_t i = 0; i < tile.columns; i += block_columns) {
        const __m256 q = Avx2::load(query + i);
        const __m256 folded = Avx2::mul(q, Avx2::load(tile.scale + i));
        Avx2::store(tile.folded + i, folded);
        most = Avx2::max(most, _mm256_andnot_ps(sign, folded));
        sum = Avx2::add(sum, folded);
        zeros = Avx2::fma(q, Avx2::load(tile.zero + i), zeros);
    }
    const float largest = max_of(most);
    const __m256 steps = Avx2::set(largest > 0 ? 127 / largest : 0);
    const auto pack = [](__m256i a, __m256i b) { return _mm256_packs_epi16(a, b); };
    __m256i sum_of_steps = _mm256_setzero_si256();
    for (std::int64_t i = 0; i < tile.columns; i += code_vector) {
        const __m256i bytes = rounded_bytes(tile.folded + i, steps, pack);
        sum_of_steps = _mm256_add_epi32(sum_of_steps, sum_of_bytes(bytes));
        store_bytes(tile.query_steps + row * tile.column_stride + i, bytes);
    }
    constexpr float middle_digit = 7.5F;
    const float step = largest / 127;
    const float lost = Avx2::sum(sum) - step * Avx2::sum(_mm256_cvtepi32_ps(sum_of_steps));
    tile.query_step[row] = step;
    tile.zero_score[row] = Avx2::sum(zeros) + middle_digit * lost;
}

/// Rounds the probabilities of a row, whose sum is `sum`, to bytes, in steps of the page's own. Returns their sum then.
/// Probabilities so small that 255 / largest is infinite become zero.
float round_probabilities(const RowBlock& block, const CodeTile& tile, std::int64_t row, float sum) {
    const float* p = scores_of(block, row);
    __m256 most = Avx2::zero();
    for (std::int64_t t = 0; t < most_tile_tokens; t += 8) most = Avx2::max(most, Avx2::load(p + t));
    const float largest = max_of(most);
    const __m256 steps = Avx2::set(largest > 0 ? 255 / largest : 0);
    const auto pack = [](__m256i a, __m256i b) { return _mm256_packus_epi16(a, b); };
    __m256i sums = _mm256_setzero_si256();
    for (std::int64_t t = 0; t < most_tile_tokens; t += code_vector) {
        const __m256i bytes = rounded_bytes(p + t, steps, pack);
        store_bytes(tile.probabilities + row * most_tile_tokens + t, bytes);
        sums = _mm256_add_epi64(sums, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
    }
    const auto sum_of_steps = _mm256_extract_epi64(sums, 0) + _mm256_extract_epi64(sums, 1) +
                              _mm256_extract_epi64(sums, 2) + _mm256_extract_epi64(sums, 3);
    tile.probability_step[row] = sum == sum ? largest / 255 : sum;  // a NaN stays visible
    tile.probability_sum[row] = static_cast<float>(sum_of_steps);
    return tile.probability_step[row] * tile.probability_sum[row];
}

/// Quads of a page and of the rows that they meet.
struct Quads {
    const char* page;          // whole vectors each
    std::int64_t page_stride;  // bytes
    const char* rows;          // four bytes each
    std::int64_t row_stride;   // bytes
    std::int64_t count;
};

/// Which of the two factors is unsigned, as the instructions want the first one to be.
enum class Unsigned {
    page,  ///< digits of keys; queries are signed
    rows,  ///< probabilities; values are signed
};

int load_quad(const char* bytes) {
    int word = 0;
    std::memcpy(&word, bytes, sizeof word);
    return word;
}

/// Products of bytes in pairs: their 16-bit sums become 32-bit ones before they can overflow.
struct PairProducts {
    static constexpr int vectors = 2;
    static constexpr int rows_at_once = 3;

    template <Unsigned unsigned_factor, int Rows>
    static void multiply(Quads quads, __m256i (&sums)[Rows][vectors]) {
        for (auto& of_row : sums) {
            for (__m256i& sum : of_row) sum = _mm256_setzero_si256();
        }
        for (std::int64_t left = quads.count; left > 0; left -= run_quads) {
            quads.count = smaller(left, run_quads);
            add_run<unsigned_factor, Rows>(quads, sums);
            quads.page += run_quads * quads.page_stride;
            quads.rows += run_quads * per_quad;
        }
    }

private:
    /// Quads whose products a 16-bit sum can hold: of digits with query bytes, 2 * 15 * 127 each, and of values with
    /// probabilities, 2 * 8 * 255.
    static constexpr std::int64_t run_quads = 8;

    template <Unsigned unsigned_factor>
    static __m256i pairs(__m256i page, __m256i row) {
        return unsigned_factor == Unsigned::page ? _mm256_maddubs_epi16(page, row) : _mm256_maddubs_epi16(row, page);
    }

    template <Unsigned unsigned_factor, int Rows>
    static void add_run(const Quads& quads, __m256i (&sums)[Rows][vectors]) {
        __m256i run[Rows][vectors];
        for (auto& of_row : run) {
            for (__m256i& sum : of_row) sum = _mm256_setzero_si256();
        }
        const char* page = quads.page;
        const char* rows = quads.rows;
#pragma GCC unroll 1
        for (std::int64_t i = 0; i < quads.count; ++i, page += quads.page_stride, rows += per_quad) {
            const __m256i of_page[vectors] = {Avx2::load_words(page), Avx2::load_words(page + code_vector)};
#pragma GCC unroll 3
            for (int r = 0; r < Rows; ++r) {
                const __m256i row = _mm256_set1_epi32(load_quad(rows + r * quads.row_stride));
#pragma GCC unroll 2
                for (int v = 0; v < vectors; ++v) {
                    run[r][v] = _mm256_add_epi16(run[r][v], pairs<unsigned_factor>(of_page[v], row));
                }
            }
        }
        const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 3
        for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v) {
                sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(run[r][v], ones));
            }
        }
    }
};

/// Scores of `Rows` rows and eight tokens a vector.
template <int Rows>
void score_codes(const RowBlock& block, const CodeTile& tile, std::int64_t row, std::int64_t token) {
    __m256i sums[Rows][PairProducts::vectors];
    PairProducts::multiply<Unsigned::page, Rows>(
        {.page = reinterpret_cast<const char*>(tile.keys) + token * per_quad,
         .page_stride = key_quad_bytes,
         .rows = reinterpret_cast<const char*>(tile.query_steps) + row * tile.column_stride,
         .row_stride = tile.column_stride,
         .count = tile.columns / per_quad},
        sums);
    for (int r = 0; r < Rows; ++r) {
        const __m256 step = Avx2::set(tile.query_step[row + r]), zero = Avx2::set(tile.zero_score[row + r]);
        for (int v = 0; v < PairProducts::vectors; ++v) {
            Avx2::store(scores_of(block, row + r) + token + 8 * v,
                        Avx2::fma(_mm256_cvtepi32_ps(sums[r][v]), step, zero));
        }
    }
}

void score_code_tile(const AttentionParams& params, const RowBlock& block, const CodeTile& tile) {
    constexpr int tokens = 8 * PairProducts::vectors;
    for (std::int64_t row = 0; row < block.rows; ++row) fold_query(tile, row);
    for (std::int64_t token = 0; token < most_tile_tokens; token += tokens) {
        fetch_ahead(params, block, token, tokens);
        for_each_rows<PairProducts::rows_at_once>(
            block.rows, [&](std::int64_t row, auto rows) { score_codes<rows()>(block, tile, row, token); });
    }
}

/// Eight channels of a row: sums = sums * rescale + probabilities . values.
void add_scaled(const RowBlock& block, const CodeTile& tile, std::int64_t row, std::int64_t channel, __m256i products) {
    float* at = block.sums + row * block.parts.value_words + channel;
    const __m256 scale = Avx2::load(tile.value_scale + channel);
    const __m256 middle = Avx2::fma(scale, Avx2::set(middle_code), Avx2::load(tile.value_zero + channel));
    const __m256 middles = Avx2::mul(middle, Avx2::set(tile.probability_sum[row]));
    const __m256 steps = Avx2::fma(_mm256_cvtepi32_ps(products), scale, middles);
    const __m256 before = Avx2::mul(Avx2::load(at), Avx2::set(block.rescale[row]));
    Avx2::store(at, Avx2::fma(steps, Avx2::set(tile.probability_step[row]), before));
}

/// Rows times eight channels for each two vectors of a page: of 32 channels from `first` on those of a part.
template <int Rows>
void add_codes(const RowBlock& block, const CodeTile& tile, std::int64_t row, std::int64_t first, std::int64_t part) {
    __m256i sums[Rows][PairProducts::vectors];
    PairProducts::multiply<Unsigned::rows, Rows>(
        {.page = reinterpret_cast<const char*>(tile.values) + first * most_tile_tokens +
                 part * PairProducts::vectors * code_vector,
         .page_stride = value_quad_bytes,
         .rows = reinterpret_cast<const char*>(tile.probabilities) + row * most_tile_tokens,
         .row_stride = most_tile_tokens,
         .count = most_tile_tokens / per_quad},
        sums);
    for (int r = 0; r < Rows; ++r) {
        for (int v = 0; v < PairProducts::vectors; v += 2) {
            const std::int64_t channel = first + (part * PairProducts::vectors + v) * 4;
            add_scaled(block, tile, row + r, channel, _mm256_permute2x128_si256(sums[r][v], sums[r][v + 1], 0x20));
            add_scaled(block, tile, row + r, channel + 16, _mm256_permute2x128_si256(sums[r][v], sums[r][v + 1], 0x31));
        }
    }
}

void add_code_values(const RowBlock& block, const CodeTile& tile) {
    constexpr int parts = static_cast<int>(value_quad_bytes / code_vector) / PairProducts::vectors;
    for (std::int64_t first = 0; first < tile.value_bytes; first += code_vector) {
        for (std::int64_t part = 0; part < parts; ++part) {
            for_each_rows<PairProducts::rows_at_once>(
                block.rows, [&](std::int64_t row, auto rows) { add_codes<rows()>(block, tile, row, first, part); });
        }
    }
}

/// One page for all rows of the block.
void attend_code_tile(const AttentionParams& params, const RowBlock& block, const CodeTile& tile,
                      const KeyTile& cached) {
    load_page(params, cached.keys, tile);
    score_code_tile(params, block, tile);
    softmax_tile(params, block, cached,
                 [&](std::int64_t row, float sum) { return round_probabilities(block, tile, row, sum); });
    add_code_values(block, tile);
}

}  // namespace
}  // namespace mha2mla::kernels
