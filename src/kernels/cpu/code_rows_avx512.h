#pragma once

#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/code_reader_avx2.h"

/// What AVX-512 and AMX share of attention over the codes of sealed pages, whose arithmetic code_attention_avx2.h
/// explains: probabilities in bytes, values, and pages among exact tokens. A query row lies in each lane up to the
/// probabilities, but for few_rows_codes_avx512.h. Included by *_avx512.cpp and *_amx.cpp, and of internal linkage, as
/// vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

constexpr std::int64_t value_group = 32;  // channels
constexpr std::int64_t per_quad = 4;
constexpr std::int64_t quad_vector_bytes = 64;  // quads of 16 rows, or of 16 channels
constexpr std::int64_t half_group_bytes = most_tile_tokens / per_quad * quad_vector_bytes;

/// Tokens of a page from whose rows any 16 bytes may be read that begin within: a row has a byte at least, so that they
/// end within the page.
constexpr std::int64_t unchecked_tokens = most_tile_tokens - 16;

/// A page's values, and what they meet.
struct CodeValues {
    std::int64_t channels = 0;  // whole groups of 32
    std::uint8_t* values =
        nullptr;             // [even, odd ones of 32 channels][64 / 4 quads of tokens][16][4], of one group or all
    float* scale = nullptr;  // [channels]
    float* zero = nullptr;   // [channels]
    float* probability_step = nullptr;  // [rows]
    float* probability_sum = nullptr;   // [rows], in steps
};

inline __m512i side_by_side(const __m128i (&halves)[4]) {
    const __m512i low = _mm512_inserti32x4(_mm512_castsi128_si512(halves[0]), halves[1], 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(low, halves[2], 2), halves[3], 3);
}

/// 16 bytes of four rows.
inline __m512i load_four_rows(const char* rows, std::int64_t stride) {
    __m128i halves[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) halves[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + i * stride));
    return side_by_side(halves);
}

/// Quad 4 i + k becomes quad 4 k + i.
inline __m512i transpose_quads(__m512i quads) {
    const __m512i from = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(from, quads);
}

/// sum += products of quads of bytes, the first ones unsigned. Without the empty instruction GCC 12 keeps two copies of
/// each sum in a loop, and stores one of them in every step.
__attribute__((always_inline)) inline void add_quads(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) {
    sum = _mm512_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
    __asm__("" : "+v"(sum));
}

/// 32 channels of four tokens, 16 bytes each, to quads of tokens.
inline void store_value_quads(__m512i tokens, std::uint8_t* to) {
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i low_bits = _mm512_set1_epi8(0x0f);
    const __m512i both = _mm512_shuffle_epi8(transpose_quads(tokens), bytes);
    _mm512_store_si512(to, _mm512_and_si512(both, low_bits));
    _mm512_store_si512(to + half_group_bytes, _mm512_and_si512(_mm512_srli_epi16(both, 4), low_bits));
}

/// A group of channels, `channel` the first.
[[gnu::noinline]] void load_value_group(const CodeReader& codes, std::int64_t channel, std::uint8_t* to) {
    const char* rows = codes.row(0) + channel / 2;
    const std::int64_t row_bytes = codes.row_bytes();
    std::int64_t token = 0;
    for (; token < unchecked_tokens; token += per_quad, rows += per_quad * row_bytes, to += quad_vector_bytes) {
        store_value_quads(load_four_rows(rows, row_bytes), to);
    }
    for (; token < most_tile_tokens; token += per_quad, to += quad_vector_bytes) {
        __m128i halves[4];
        codes.load_halves(token, channel / 2, halves);
        store_value_quads(side_by_side(halves), to);
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

/// Of the scores of a page and 16 rows.
struct PageSums {
    __m512 most = Avx512::set(-__builtin_inff());
    __mmask16 is_nan = 0;
    __m512 steps = Avx512::zero();  // of probabilities: their sums
};

/// What is taken from scores before they become powers. Of a row that sees no key any finite number does: all its
/// probabilities are zero.
inline __m512 reference_of(__m512 most) {
    return Avx512::where_greater(most, Avx512::set(-__builtin_inff()), most, Avx512::zero());
}

/// 255 times 2^x for x up to zero, rounded: exp2_of with less range and the precision of a byte. Some vectors step by
/// step, since one would wait for each of its own results.
template <int Count>
__attribute__((always_inline)) inline void rounded_powers(const __m512 (&x)[Count], __m512i (&steps)[Count]) {
    constexpr float coefficients[] = {255, 255 * 0.693147181F, 255 * 0.240226507F, 255 * 0.0555041087F,
                                      255 * 0.00961812911F};  // 255 (ln 2)^k / k!
    const __m512 to_whole = Avx512::set(0x1.8p23F);           // in the low bits
    __m512 whole[Count], r[Count], p[Count];
#pragma GCC unroll 8
    for (int v = 0; v < Count; ++v) r[v] = Avx512::max(x[v], Avx512::set(-30.0F));
#pragma GCC unroll 8
    for (int v = 0; v < Count; ++v) whole[v] = Avx512::add(r[v], to_whole);
#pragma GCC unroll 8
    for (int v = 0; v < Count; ++v) p[v] = Avx512::sub(whole[v], to_whole);
#pragma GCC unroll 8
    for (int v = 0; v < Count; ++v) r[v] = Avx512::sub(r[v], p[v]);
#pragma GCC unroll 8
    for (int v = 0; v < Count; ++v) p[v] = Avx512::set(coefficients[4]);
#pragma GCC unroll 4
    for (int k = 3; k >= 0; --k) {
#pragma GCC unroll 8
        for (int v = 0; v < Count; ++v) p[v] = Avx512::fma(p[v], r[v], Avx512::set(coefficients[k]));
    }
#pragma GCC unroll 8
    for (int v = 0; v < Count; ++v) {
        const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(whole[v]), 23);
        steps[v] = _mm512_cvtps_epi32(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p[v]), exponent)));
    }
}

/// The running maximum and sum of 16 rows go on by a page's.
inline void add_page(const RowBlock& block, const CodeValues& values, int v, const PageSums& page) {
    const __m512 old_max = Avx512::load(block.max + v * 16), max = Avx512::max(old_max, page.most);
    const __m512 largest = exp2_of<Avx512, 6>(Avx512::sub(page.most, reference_of(max)));
    const __m512 step = _mm512_mask_mov_ps(Avx512::mul(largest, Avx512::set(1.0F / 255)), page.is_nan,
                                           Avx512::set(__builtin_nanf("")));  // stays visible
    const __m512 rescale = exp2_of<Avx512, 6>(Avx512::sub(old_max, reference_of(max)));
    const __m512 sum_before = Avx512::mul(Avx512::load(block.sum + v * 16), rescale);
    Avx512::store(block.max + v * 16, max);
    Avx512::store(block.sum + v * 16, Avx512::fma(step, page.steps, sum_before));
    Avx512::store(block.rescale + v * 16, rescale);
    Avx512::store(values.probability_step + v * 16, step);
    Avx512::store(values.probability_sum + v * 16, page.steps);
}

/// The scales of a group of values.
struct ValueGroup {
    std::int64_t channel;  // the first of 32
    __m512 scale[2];
    __m512 zero[2];
};

inline ValueGroup value_group_at(const CodeValues& values, std::int64_t channel) {
    const float *const scale = values.scale + channel, *const zero = values.zero + channel;
    return {channel, {Avx512::load(scale), Avx512::load(scale + 16)}, {Avx512::load(zero), Avx512::load(zero + 16)}};
}

/// A row's probabilities times the codes of a group of values: even, odd channels.
struct ValueProducts {
    __m512i even;
    __m512i odd;
};

/// sums = sums * rescale + probabilities . values.
__attribute__((always_inline)) inline void add_scaled(const RowBlock& block, const CodeValues& values,
                                                      const ValueGroup& group, std::int64_t row,
                                                      const ValueProducts& products) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const __m512i in_order[2] = {_mm512_permutex2var_epi32(products.even, low, products.odd),
                                 _mm512_permutex2var_epi32(products.even, high, products.odd)};
    const __m512 step = Avx512::set(values.probability_step[row]), sum = Avx512::set(values.probability_sum[row]);
    const __m512 rescale = Avx512::set(block.rescale[row]);
    float* const sums = block.sums + row * block.parts.value_words + group.channel;
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
        float* const at = sums + half * Avx512::lanes;
        const __m512 zeros = Avx512::mul(group.zero[half], sum);
        const __m512 of_values = Avx512::fma(_mm512_cvtepi32_ps(in_order[half]), group.scale[half], zeros);
        Avx512::store(at, Avx512::fma(of_values, step, Avx512::mul(Avx512::load(at), rescale)));
    }
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

private:
    /// Of 16 rows, in steps of the page's own largest, to [quads of tokens][rows][4]; the running maximum and sum go
    /// on.
    [[gnu::noinline]] static void round_probabilities(const RowBlock& block, const CodeValues& values, int v) {
        const float* const scores = block.scores + v * 16;
        PageSums page;
        for (std::int64_t t = 0; t < most_tile_tokens; ++t) {
            const __m512 score = Avx512::load(scores + t * most_rows);
            page.most = Avx512::max(score, page.most);  // passes over NaN
            page.is_nan |= _mm512_cmp_ps_mask(score, score, _CMP_UNORD_Q);
        }
        page.steps = round_exponentials(scores, reference_of(page.most), block.probabilities + v * quad_vector_bytes);
        add_page(block, values, v, page);
    }

    /// 255 times 2^(score - reference) in bytes, quads of tokens. Returns their sums.
    static __m512 round_exponentials(const float* scores, __m512 reference, char* to) {
        __m512i sum = _mm512_setzero_si512();
        for (std::int64_t token = 0; token < most_tile_tokens; token += per_quad, to += word_bytes) {
            __m512 x[per_quad];
#pragma GCC unroll 4
            for (int i = 0; i < per_quad; ++i) {
                x[i] = Avx512::sub(Avx512::load(scores + (token + i) * most_rows), reference);
            }
            __m512i steps[per_quad], quad = _mm512_setzero_si512();
            rounded_powers(x, steps);
#pragma GCC unroll 4
            for (int i = per_quad - 1; i >= 0; --i) quad = append_byte(quad, steps[i]);
            _mm512_store_si512(to, quad);
            sum = _mm512_dpbusd_epi32(sum, quad, _mm512_set1_epi8(1));
        }
        return _mm512_cvtepi32_ps(sum);
    }
};

/// sums = sums * rescale + probabilities . values, of `Count` rows and the 32 channels from `channel` on.
template <int RowVectors, int Count>
[[gnu::noinline]] void multiply_values(const RowBlock& block, const CodeValues& values, std::int64_t channel,
                                       std::int64_t row) {
    const char* const probabilities =
        ProbabilitiesInBytes<RowVectors>::probabilities(block, 0) + row * quad_vector_bytes;
    __m512i sums[Count][2];
#pragma GCC unroll 11
    for (int r = 0; r < Count; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_si512();
    const std::uint8_t* quads = values.values;
    for (std::int64_t t = 0; t < most_tile_tokens; t += per_quad, quads += quad_vector_bytes) {
        const __m512i even = Avx512::load_words(quads), odd = Avx512::load_words(quads + half_group_bytes);
#pragma GCC unroll 11
        for (int r = 0; r < Count; ++r) {
            const __m512i probability = Bf16Words::broadcast(probabilities + r * quad_vector_bytes + t);
            add_quads(sums[r][0], probability, even);
            add_quads(sums[r][1], probability, odd);
        }
    }
    const ValueGroup group = value_group_at(values, channel);
#pragma GCC unroll 11
    for (int r = 0; r < Count; ++r) add_scaled(block, values, group, row + r, {sums[r][0], sums[r][1]});
}

/// Probabilities times a page's values, whose scales are there.
template <int RowVectors>
void add_page_values(const RowBlock& block, const CodeValues& values, const CodeReader& codes) {
    constexpr int rows_at_once = 11;  // times two vectors of sums
    for (std::int64_t channel = 0; channel < values.channels; channel += value_group) {
        load_value_group(codes, channel, values.values);
        for_each_rows<rows_at_once>(block.rows, [&](std::int64_t row, auto rows) {
            multiply_values<RowVectors, rows()>(block, values, channel, row);
        });
    }
}

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
