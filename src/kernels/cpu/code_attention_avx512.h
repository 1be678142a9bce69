#pragma once

#include "kernels/cpu/code_rows_avx512.h"

/// The arithmetic of code_attention_avx2.h by instructions that add up products of quads of bytes (VNNI): a policy of
/// code_rows_avx512.h. Included by *_avx512.cpp, and of internal linkage, as vector_avx2.h says.
///
/// Nothing of the keys is spread: four bytes of a token's codes meet the queries of 16 rows as they lie. A byte b of
/// two codes of 4 bits, l + 16 h, takes two products, with itself and with its low digit:
///
///   f_l l + f_h h = (f_h / 16) b + (f_l - f_h / 16) l
///
/// of which f_l and f_h are the queries times the scales. A byte that is one code takes the first alone. Either factor
/// has a step of its own, for each row and page.
namespace mha2mla::kernels {
namespace {

/// Codes of which whole words may be read.
struct CodeWords {
    const char* data;
    std::int64_t row_bytes;
};

/// A part of the key: latents or rotary keys.
struct KeyPart {
    const CodedRows* rows = nullptr;
    std::int64_t words = 0;     // of four bytes of a token's codes
    std::int64_t channels = 0;  // of so many words, at least the part's
    bool has_digits = false;    // two codes a byte
    CodeWords codes = {};       // of a page
    char* copy = nullptr;       // room for them

    /// 16-row vectors of query steps for each word: for its bytes, and for their low digits.
    int factors() const { return has_digits ? 2 : 1; }
};

struct CodeKeys {
    KeyPart parts[2];
    std::int64_t channels = 0;     // of both parts
    std::int64_t steps_bytes = 0;  // of 16 rows
    float* scale = nullptr;        // [channels], of codes of 8 bits 16 times
    float* zero = nullptr;         // [channels]
    float* query = nullptr;        // [row vectors][channels][16]
    char* steps = nullptr;         // [row vectors][words][factors][16][4]
    float* byte_step = nullptr;    // [rows]
    float* digit_step = nullptr;   // [rows]
    float* zero_score = nullptr;   // [rows], the score of a key whose codes are all zero
    CodeValues values;
};

inline KeyPart key_part(const CodedRows& rows) {
    const std::int64_t words = round_up(rows.width * rows.bits, 32) / 32;
    return {.rows = &rows, .words = words, .channels = words * 32 / rows.bits, .has_digits = rows.bits == 4};
}

template <int RowVectors>
CodeKeys code_keys_of(const AttentionParams& params, const RowBlock& block) {
    CodeKeys keys;
    for (int i = 0; i < 2; ++i) {
        const KeyPart& part = keys.parts[i] = key_part(params.sealed.keys[i]);
        keys.channels += part.channels;
        keys.steps_bytes += part.words * part.factors() * quad_vector_bytes;
    }
    CodeValues& values = keys.values;
    values.channels = round_up(params.value_width, value_group);
    constexpr std::int64_t rows = RowVectors * Avx512::lanes;
    ScratchParts memory(block.codes);
    memory.take(keys.steps, RowVectors * keys.steps_bytes);
    memory.take(values.values, 2 * half_group_bytes);
    memory.take(keys.query, rows * keys.channels);
    for (float** of_rows :
         {&keys.byte_step, &keys.digit_step, &keys.zero_score, &values.probability_step, &values.probability_sum}) {
        memory.take(*of_rows, rows);
    }
    for (float** of_channels : {&keys.scale, &keys.zero}) memory.take(*of_channels, keys.channels + 8);
    for (float** of_values : {&values.scale, &values.zero}) memory.take(*of_values, values.channels);
    for (KeyPart& part : keys.parts) memory.take(part.copy, most_tile_tokens * part.words * 4);
    return keys;
}

/// The scaled queries of 16 rows from `row` on, channel by channel; zero where there is no row or no channel.
[[gnu::noinline]] void spread_queries(const AttentionParams& params, const RowBlock& block, const CodeKeys& keys,
                                      std::int64_t row, float* to) {
    const __m512 scale = Avx512::set(log2_scale(params));
    const float* q = params.q + (block.first_row + row) * params.q_stride;
    for (const KeyPart& part : keys.parts) {
        for (std::int64_t first = 0; first < part.channels; first += Avx512::lanes) {
            const std::int64_t count = part.rows->width - first;
            __m512i rows[16];
            for (int r = 0; r < 16; ++r) {
                const bool any = row + r < block.rows && count > 0;
                const __m512 x = any ? Avx512::load_first(q + r * params.q_stride + first, count) : Avx512::zero();
                rows[r] = _mm512_castps_si512(Avx512::mul(x, scale));
            }
            transpose_rows(rows, [&](int column, __m512i of_rows) {
                if (first + column >= part.channels) return;
                Avx512::store(to + (first + column) * Avx512::lanes, _mm512_castsi512_ps(of_rows));
            });
        }
        to += part.channels * Avx512::lanes;
        q += part.rows->width;
    }
}

/// Of a page.
[[gnu::noinline]] void load_key_scales(const char* cached, const CodeKeys& keys) {
    float *scale = keys.scale, *zero = keys.zero;
    for (const KeyPart& part : keys.parts) {
        const __m256 weight = Avx2::set(part.has_digits ? 1 : 16);
        for (std::int64_t channel = 0; channel < part.channels; channel += 8) {
            const ScaleVectors s = scales_at(*part.rows, cached, channel);
            Avx2::store(scale + channel, Avx2::mul(s.scale, weight));
            Avx2::store(zero + channel, s.zero);
        }
        scale += part.channels;
        zero += part.channels;
    }
}

/// The factors of a byte for 16 rows: f_h, which counts a sixteenth, and f_l - f_h / 16 where it has two digits.
struct FoldedPair {
    __m512 of_byte;
    __m512 of_digit;
};

/// Of byte `i` of a word whose channels begin at `query`, `scale`.
template <bool has_digits>
FoldedPair fold_byte(const float* query, const float* scale, int i) {
    if constexpr (!has_digits) {
        return {Avx512::mul(Avx512::load(query + i * Avx512::lanes), Avx512::set(scale[i])), Avx512::zero()};
    }
    const __m512 high = Avx512::load(query + (2 * i + 1) * Avx512::lanes);
    const __m512 low = Avx512::load(query + 2 * i * Avx512::lanes);
    const __m512 of_byte = Avx512::mul(high, Avx512::set(scale[2 * i + 1]));
    const __m512 of_low = Avx512::mul(low, Avx512::set(scale[2 * i]));
    return {of_byte, Avx512::fma(of_byte, Avx512::set(-1.0F / 16), of_low)};
}

/// Calls visit(has_digits, queries, first channel) for the words of 16 rows.
template <class Visit>
__attribute__((always_inline)) inline void for_each_word(const CodeKeys& keys, const float* query, const Visit& visit) {
    std::int64_t channel = 0;
    for (const KeyPart& part : keys.parts) {
        const std::int64_t end = channel + part.channels;
        if (part.has_digits) {
            for (; channel < end; channel += 8) visit(std::true_type(), query + channel * Avx512::lanes, channel);
        } else {
            for (; channel < end; channel += 4) visit(std::false_type(), query + channel * Avx512::lanes, channel);
        }
    }
}

/// Of 16 rows: the largest magnitudes of what is folded, and sums.
struct FoldedSums {
    __m512 most_of_bytes = Avx512::zero(), most_of_digits = Avx512::zero();
    __m512 bytes = Avx512::zero(), digits = Avx512::zero();
    __m512 zeros = Avx512::zero();  // queries times zeros
};

[[gnu::noinline]] FoldedSums sum_folded(const CodeKeys& keys, const float* query) {
    FoldedSums sums;
    for_each_word(
        keys, query, [&](auto has_digits, const float* q, std::int64_t channel) __attribute__((always_inline)) {
            __m512 bytes = Avx512::zero(), digits = Avx512::zero(), zeros = Avx512::zero();
#pragma GCC unroll 4
            for (int i = 0; i < per_quad; ++i) {
                const FoldedPair folded = fold_byte<has_digits()>(q, keys.scale + channel, i);
                sums.most_of_bytes = Avx512::max(sums.most_of_bytes, _mm512_abs_ps(folded.of_byte));
                bytes = Avx512::add(bytes, folded.of_byte);
                if constexpr (has_digits()) {
                    sums.most_of_digits = Avx512::max(sums.most_of_digits, _mm512_abs_ps(folded.of_digit));
                    digits = Avx512::add(digits, folded.of_digit);
                }
            }
#pragma GCC unroll 8
            for (int c = 0; c < (has_digits() ? 8 : 4); ++c) {
                zeros = Avx512::fma(Avx512::load(q + c * Avx512::lanes), Avx512::set(keys.zero[channel + c]), zeros);
            }
            sums.bytes = Avx512::add(sums.bytes, bytes);
            sums.digits = Avx512::add(sums.digits, digits);
            sums.zeros = Avx512::add(sums.zeros, zeros);
        });
    return sums;
}

/// Folds a page's scales into the queries of 16 rows and rounds them. What rounding leaves would meet codes whose mean
/// is far from zero; it meets the middle ones instead, as in code_attention_avx2.h.
[[gnu::noinline]] void fold_queries(const CodeKeys& keys, int v) {
    const float* const query = keys.query + v * keys.channels * Avx512::lanes;
    const FoldedSums sums = sum_folded(keys, query);
    const __m512 steps_per_byte = steps_per_unit(sums.most_of_bytes),
                 steps_per_digit = steps_per_unit(sums.most_of_digits);
    __m512i byte_steps = _mm512_setzero_si512(), digit_steps = _mm512_setzero_si512();
    const __m512i ones = _mm512_set1_epi8(1);
    char* to = keys.steps + v * keys.steps_bytes;
    for_each_word(
        keys, query, [&](auto has_digits, const float* q, std::int64_t channel) __attribute__((always_inline)) {
            __m512i bytes = _mm512_setzero_si512(), digits = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int i = per_quad - 1; i >= 0; --i) {
                const FoldedPair folded = fold_byte<has_digits()>(q, keys.scale + channel, i);
                bytes = append_byte(bytes, rounded_product(folded.of_byte, steps_per_byte));
                if constexpr (has_digits()) {
                    digits = append_byte(digits, rounded_product(folded.of_digit, steps_per_digit));
                }
            }
            _mm512_store_si512(to, bytes);
            byte_steps = _mm512_dpbusd_epi32(byte_steps, ones, bytes);
            to += quad_vector_bytes;
            if constexpr (has_digits()) {
                _mm512_store_si512(to, digits);
                digit_steps = _mm512_dpbusd_epi32(digit_steps, ones, digits);
                to += quad_vector_bytes;
            }
        });
    const __m512 per_step = Avx512::set(1.0F / 127);
    const __m512 byte_step = Avx512::mul(sums.most_of_bytes, per_step),
                 digit_step = Avx512::mul(sums.most_of_digits, per_step);
    const __m512 lost_bytes = Avx512::sub(sums.bytes, Avx512::mul(byte_step, _mm512_cvtepi32_ps(byte_steps)));
    const __m512 lost_digits = Avx512::sub(sums.digits, Avx512::mul(digit_step, _mm512_cvtepi32_ps(digit_steps)));
    constexpr float middle_byte = 127.5F, middle_digit = 7.5F;
    const __m512 of_digits = Avx512::fma(lost_digits, Avx512::set(middle_digit), sums.zeros);
    Avx512::store(keys.byte_step + v * Avx512::lanes, Avx512::mul(byte_step, Avx512::set(1.0F / 16)));
    Avx512::store(keys.digit_step + v * Avx512::lanes, digit_step);
    Avx512::store(keys.zero_score + v * Avx512::lanes,
                  Avx512::fma(lost_bytes, Avx512::set(middle_byte / 16), of_digits));
}

/// Finds a page's codes: a copy where the last row ends within a word.
inline void find_codes(const char* cached, CodeKeys& keys) {
    for (KeyPart& part : keys.parts) {
        const CodedRows& rows = *part.rows;
        const char* from = cached + rows.offset_bytes;
        const std::int64_t bytes = part.words * 4;
        part.codes = {from, rows.row_bytes};
        if (bytes <= rows.row_bytes) continue;
        part.codes = {part.copy, bytes};
        for (std::int64_t t = 0; t < most_tile_tokens; ++t, from += rows.row_bytes) {
            __builtin_memcpy(part.copy + t * bytes, from, static_cast<std::size_t>(rows.row_bytes));
        }
    }
}

/// Sums of products for some tokens of 16 rows. A word adds 4 * 255 * 127 at most: 32 bits hold 16,577 of them.
struct TokenSums {
    static constexpr int tokens = 8;
    __m512i bytes[tokens];
    __m512i digits[tokens];
};

/// Of the tokens from `codes.data` on.
template <bool has_digits>
__attribute__((always_inline)) inline void add_products(const CodeWords& codes, std::int64_t words, const char* steps,
                                                        TokenSums& sums) {
    const __m512i low_bits = _mm512_set1_epi8(0x0f);
    const char* tokens[TokenSums::tokens];
#pragma GCC unroll 8
    for (int t = 0; t < TokenSums::tokens; ++t) tokens[t] = codes.data + t * codes.row_bytes;
    for (std::int64_t w = 0; w < words; ++w, steps += (has_digits ? 2 : 1) * quad_vector_bytes) {
        const __m512i of_byte = Avx512::load_words(steps);
        const __m512i of_digit = has_digits ? Avx512::load_words(steps + quad_vector_bytes) : of_byte;
#pragma GCC unroll 8
        for (int t = 0; t < TokenSums::tokens; ++t) {
            const __m512i bytes = Bf16Words::broadcast(tokens[t] + 4 * w);
            add_quads(sums.bytes[t], bytes, of_byte);
            if (has_digits) add_quads(sums.digits[t], _mm512_and_si512(bytes, low_bits), of_digit);
        }
    }
}

/// Attention of up to 16 * RowVectors rows over whole pages.
template <int RowVectors>
struct CodesInVectors {
    using Probabilities = ProbabilitiesInBytes<RowVectors>;
    static constexpr std::int64_t most_rows = Probabilities::most_rows;

    static void load(const AttentionParams& params, const RowBlock& block) {
        const CodeKeys keys = code_keys_of<RowVectors>(params, block);
        for (int v = 0; v < RowVectors; ++v) {
            spread_queries(params, block, keys, v * Avx512::lanes, keys.query + v * keys.channels * Avx512::lanes);
        }
    }

    static void find_probabilities(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        CodeKeys keys = code_keys_of<RowVectors>(params, block);
        find_codes(tile.keys, keys);
        fetch_quarter(params, block, 0);
        load_key_scales(tile.keys, keys);
        for (int v = 0; v < RowVectors; ++v) fold_queries(keys, v);
        fetch_quarter(params, block, 1);
        for (int v = 0; v < RowVectors; ++v) score(block, keys, v);
        fetch_quarter(params, block, 2);
        RowsInLanes<Avx512, Bf16Words, RowVectors>::finish_scores(params, block, tile);
        fetch_quarter(params, block, 3);
        Probabilities::find_probabilities(block, keys.values);
    }

    static void add_values(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        const CodeValues values = code_keys_of<RowVectors>(params, block).values;
        const CodedRows& latents = params.sealed.keys[0];
        load_value_scales(latents, tile.keys, values.channels, {values.scale, values.zero});
        add_page_values<RowVectors>(block, values, {latents, tile.keys});
    }

private:
    /// [tokens][rows], of 16 rows.
    static void score(const RowBlock& block, const CodeKeys& keys, int v) {
        for (std::int64_t t = 0; t < most_tile_tokens; t += TokenSums::tokens) score_tokens(block, keys, t, v);
    }

    [[gnu::noinline]] static void score_tokens(const RowBlock& block, const CodeKeys& keys, std::int64_t token, int v) {
        TokenSums sums;
#pragma GCC unroll 8
        for (int t = 0; t < TokenSums::tokens; ++t) sums.bytes[t] = sums.digits[t] = _mm512_setzero_si512();
        const char* steps = keys.steps + v * keys.steps_bytes;
        for (const KeyPart& part : keys.parts) {
            const CodeWords codes{part.codes.data + token * part.codes.row_bytes, part.codes.row_bytes};
            part.has_digits ? add_products<true>(codes, part.words, steps, sums)
                            : add_products<false>(codes, part.words, steps, sums);
            steps += part.words * part.factors() * quad_vector_bytes;
        }
        const __m512 byte_step = Avx512::load(keys.byte_step + v * Avx512::lanes);
        const __m512 digit_step = Avx512::load(keys.digit_step + v * Avx512::lanes);
        const __m512 zero = Avx512::load(keys.zero_score + v * Avx512::lanes);
        float* scores = block.scores + token * most_rows + v * Avx512::lanes;
#pragma GCC unroll 8
        for (int t = 0; t < TokenSums::tokens; ++t, scores += most_rows) {
            const __m512 of_bytes = Avx512::fma(_mm512_cvtepi32_ps(sums.bytes[t]), byte_step, zero);
            Avx512::store(scores, Avx512::fma(_mm512_cvtepi32_ps(sums.digits[t]), digit_step, of_bytes));
        }
    }
};

}  // namespace
}  // namespace mha2mla::kernels
