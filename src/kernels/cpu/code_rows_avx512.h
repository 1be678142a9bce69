#pragma once

#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/code_reader_avx2.h"

/// What AVX-512 and AMX share of attention over the codes of sealed pages, whose arithmetic code_attention_avx2.h
/// explains: probabilities in bytes, values, and pages among exact tokens. A query row lies in each lane up to the
/// probabilities. Included by *_avx512.cpp and *_amx.cpp, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

constexpr std::int64_t value_group = 32;  // channels
constexpr std::int64_t per_quad = 4;
constexpr std::int64_t quad_vector_bytes = 64;  // quads of 16 rows, or of 16 channels
constexpr std::int64_t half_group_bytes = most_tile_tokens / per_quad * quad_vector_bytes;

/// A page's values, and what they meet.
struct CodeValues {
    std::int64_t channels = 0;  // whole groups of 32
    std::uint8_t* values =
        nullptr;             // [even, odd ones of 32 channels][64 / 4 quads of tokens][16][4], of one group or all
    float* scale = nullptr;  // [channels]
    float* zero = nullptr;   // [channels]
    std::int32_t* products = nullptr;   // [rows][even, odd ones of 32 channels]
    float* probability_step = nullptr;  // [rows]
    float* probability_sum = nullptr;   // [rows], in steps
};

/// 32 channels of four tokens, 16 bytes each: the tokens of a byte side by side.
__m512i load_quad(const CodeReader& codes, std::int64_t token, std::int64_t byte) {
    __m512i rows = _mm512_castsi128_si512(codes.load_half(token, byte));
    rows = _mm512_inserti32x4(rows, codes.load_half(token + 1, byte), 1);
    rows = _mm512_inserti32x4(rows, codes.load_half(token + 2, byte), 2);
    rows = _mm512_inserti32x4(rows, codes.load_half(token + 3, byte), 3);
    const __m512i words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, rows), bytes);
}

/// A group of channels, `channel` the first.
[[gnu::noinline]] void load_value_group(const CodeReader& codes, std::int64_t channel, std::uint8_t* to) {
    const __m512i low_bits = _mm512_set1_epi8(0x0f);
    for (std::int64_t token = 0; token < most_tile_tokens; token += per_quad, to += quad_vector_bytes) {
        const __m512i both = load_quad(codes, token, channel / 2);
        _mm512_store_si512(to, _mm512_and_si512(both, low_bits));
        _mm512_store_si512(to + half_group_bytes, _mm512_and_si512(_mm512_srli_epi16(both, 4), low_bits));
    }
}

/// a * b, less than 2^22 in magnitude, to the nearest integer in the low bits: at this size floats are whole
/// numbers.
inline __m512i rounded_product(__m512 a, __m512 b) {
    return _mm512_castps_si512(Avx512::fma(a, b, Avx512::set(0x1.8p23F)));
}

/// The low byte of each word of `word` before the bytes of `quad`.
inline __m512i append_byte(__m512i quad, __m512i word) {
    constexpr int first_or_second_and_third = 0xf8;
    return _mm512_ternarylogic_epi32(_mm512_slli_epi32(quad, 8), word, _mm512_set1_epi32(0xff),
                                     first_or_second_and_third);
}

/// 127 / most, or zero.
inline __m512 steps_per_unit(__m512 most) {
    return Avx512::where_greater(most, Avx512::zero(), Avx512::div(Avx512::set(127), most), Avx512::zero());
}

/// Up to 16 * RowVectors rows.
template <int RowVectors>
struct ProbabilitiesInBytes {
    static constexpr std::int64_t most_rows = RowVectors * Avx512::lanes;
    static constexpr std::int64_t word_bytes = most_rows * 4;  // from one word of all rows to the next

    /// Scores to probabilities in bytes: [rows][64 tokens], in the place of the scores.
    static void find_probabilities(const RowBlock& block, const CodeValues& values) {
        for (int v = 0; v < RowVectors; ++v) round_probabilities(block, values, v);
        for (int v = 0; v < RowVectors; ++v) {
            transpose_words(block.probabilities + v * quad_vector_bytes, word_bytes, probabilities(block, v),
                            quad_vector_bytes);
        }
    }

    /// [rows][64 tokens] in bytes.
    static char* probabilities(const RowBlock& block, int v) {
        return reinterpret_cast<char*>(block.scores) + v * 16 * quad_vector_bytes;
    }

    /// sums = sums * rescale + probabilities . values, of 32 channels whose products are there.
    [[gnu::noinline]] static void add_scaled(const RowBlock& block, const CodeValues& values, std::int64_t channel) {
        for (std::int64_t row = 0; row < block.rows; ++row) add_scaled(block, values, row, channel);
    }

private:
    static void add_scaled(const RowBlock& block, const CodeValues& values, std::int64_t row, std::int64_t channel) {
        const std::int32_t* const products = values.products + row * value_group;
        const __m512i even = Avx512::load_words(products), odd = Avx512::load_words(products + 16);
        const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
        const __m512i in_order[2] = {_mm512_permutex2var_epi32(even, low, odd),
                                     _mm512_permutex2var_epi32(even, high, odd)};
        const __m512 step = Avx512::set(values.probability_step[row]), sum = Avx512::set(values.probability_sum[row]);
        const __m512 rescale = Avx512::set(block.rescale[row]);
        for (int half = 0; half < 2; ++half) {
            const std::int64_t at = channel + half * 16;
            float* const sums = block.sums + row * block.parts.value_words + at;
            const __m512 zeros = Avx512::mul(Avx512::load(values.zero + at), sum);
            const __m512 sum_of_values =
                Avx512::fma(_mm512_cvtepi32_ps(in_order[half]), Avx512::load(values.scale + at), zeros);
            Avx512::store(sums, Avx512::fma(sum_of_values, step, Avx512::mul(Avx512::load(sums), rescale)));
        }
    }

    /// Of 16 rows, in steps of the page's own largest, to [quads of tokens][rows][4]; the running maximum and sum go
    /// on.
    [[gnu::noinline]] static void round_probabilities(const RowBlock& block, const CodeValues& values, int v) {
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
        const __m512i whole_sum =
            round_exponentials(scores, own_reference, block.probabilities + v * quad_vector_bytes);
        const __m512 sum_of_steps = _mm512_cvtepi32_ps(whole_sum);
        const __m512 largest = exp2_of<Avx512, 6>(Avx512::sub(most, reference));
        const __m512 step = _mm512_mask_mov_ps(Avx512::mul(largest, Avx512::set(1.0F / 255)), is_nan,
                                               Avx512::set(__builtin_nanf("")));  // stays visible
        const __m512 rescale = exp2_of<Avx512, 6>(Avx512::sub(old_max, reference));
        const __m512 sum_before = Avx512::mul(Avx512::load(block.sum + v * 16), rescale);
        Avx512::store(block.max + v * 16, max);
        Avx512::store(block.sum + v * 16, Avx512::fma(step, sum_of_steps, sum_before));
        Avx512::store(block.rescale + v * 16, rescale);
        Avx512::store(values.probability_step + v * 16, step);
        Avx512::store(values.probability_sum + v * 16, sum_of_steps);
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
};

/// Attention over the codes of whole pages by `Codes`, over all other tokens by `Numbers`. `Codes` has
///   load                the queries
///   find_probabilities  of a page
///   add_values          probabilities times values
template <class Numbers, class Codes>
struct RowsOverCodes {
    static constexpr std::int64_t most_rows = Numbers::most_rows;

    static void load(const AttentionParams& params, const RowBlock& block) {
        Numbers::load(params, block);
        Codes::load(params, block);
    }

    static KeyTile read(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        return is_code_page(tile) ? tile : Numbers::read(params, block, tile);
    }

    static void find_probabilities(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        if (!is_code_page(tile)) return Numbers::find_probabilities(params, block, tile);
        Codes::find_probabilities(params, block, tile);
    }

    static void add_values(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        if (!is_code_page(tile)) return Numbers::add_values(params, block, tile);
        Codes::add_values(params, block, tile);
    }
};

}  // namespace
}  // namespace mha2mla::kernels
