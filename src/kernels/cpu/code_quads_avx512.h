#pragma once

#include "kernels/cpu/code_rows_avx512.h"

/// The codes of sealed pages in quads, a byte each, with a token in each lane: what few_rows_codes_avx512.h multiplies.
/// Included by *_avx512.cpp, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// A part of the key: latents or rotary keys.
struct QuadPart {
    const CodedRows* rows = nullptr;
    std::int64_t words = 0;     // of four bytes of a token's codes
    std::int64_t channels = 0;  // whole groups of 32
    bool has_digits = false;    // two codes a byte: each word becomes two quads, of its low and of its high digits
    float* scale = nullptr;     // [channels], of a page
    float* zero = nullptr;      // [channels]
    char* keys = nullptr;       // [quads][64 tokens][4]
    char* last_rows = nullptr;  // a copy of the last 16 tokens', where 16 bytes from a word on may end behind a row
    float* query = nullptr;     // [rows][channels]
    char* steps = nullptr;      // [rows][quads][4], `channels` bytes from one row to the next
    float* step = nullptr;      // [16]
    float* steps_per_unit = nullptr;  // [16]

    std::int64_t quads() const { return has_digits ? 2 * words : words; }
};

struct QuadKeys {
    QuadPart parts[2];
    float* zero_score = nullptr;  // [16], the score of a key whose codes are all zero
    float* reference = nullptr;   // [16], what is taken from a row's scores
    float* lanes = nullptr;       // [16 rows][16], of which each row needs the largest or the sum
    CodeValues values;
};

/// In the scratch, where `lay_out` has put it.
inline QuadKeys& quad_keys(const RowBlock& block) { return *reinterpret_cast<QuadKeys*>(block.codes); }

inline void clear_lanes(const QuadKeys& keys) {
    for (std::int64_t i = 0; i < Avx512::lanes; ++i) Avx512::store(keys.lanes + i * Avx512::lanes, Avx512::zero());
}

/// Parts of whole lines.
inline void lay_out(const AttentionParams& params, const RowBlock& block) {
    constexpr std::int64_t most_rows = Avx512::lanes;
    QuadKeys keys;
    CodeValues& values = keys.values;
    ScratchParts memory(block.codes + round_up(sizeof keys, line_bytes));
    memory.take(values.values, 2 * half_group_bytes);
    for (int i = 0; i < 2; ++i) {
        QuadPart& part = keys.parts[i];
        part.rows = &params.sealed.keys[i];
        part.words = round_up(part.rows->width * part.rows->bits, 32) / 32;
        part.channels = round_up(part.rows->width, value_group);
        part.has_digits = part.rows->bits == 4;
        memory.take(part.keys, round_up(part.quads(), 8) * most_tile_tokens * per_quad);
        memory.take(part.last_rows, Avx512::lanes * round_up(part.words * 4, 16) + line_bytes);
    }
    for (QuadPart& part : keys.parts) {
        memory.take(part.scale, part.channels);
        memory.take(part.zero, part.channels);
        memory.take(part.query, most_rows * part.channels);
        memory.take(part.steps, most_rows * part.channels);
        memory.take(part.step, most_rows);
        memory.take(part.steps_per_unit, most_rows);
    }
    values.channels = keys.parts[0].channels;
    values.scale = keys.parts[0].scale;
    values.zero = keys.parts[0].zero;
    memory.take(keys.zero_score, Avx512::lanes);
    memory.take(keys.reference, Avx512::lanes);
    memory.take(keys.lanes, Avx512::lanes * Avx512::lanes);
    clear_lanes(keys);
    memory.take(values.probability_step, Avx512::lanes);
    memory.take(values.probability_sum, Avx512::lanes);
    quad_keys(block) = keys;
}

/// The queries, scaled; zeros behind them.
inline void load_queries(const AttentionParams& params, const RowBlock& block, const QuadKeys& keys) {
    const __m512 scale = Avx512::set(log2_scale(params));
    for (std::int64_t r = 0; r < block.rows; ++r) {
        const float* q = params.q + (block.first_row + r) * params.q_stride;
        for (const QuadPart& part : keys.parts) {
            for (std::int64_t i = 0; i < part.channels; i += Avx512::lanes) {
                const std::int64_t count = larger(part.rows->width - i, 0);
                Avx512::store(part.query + r * part.channels + i, Avx512::mul(Avx512::load_first(q + i, count), scale));
            }
            q += part.rows->width;
        }
    }
}

/// Of a page; zeros behind the last channel.
inline void load_scales(const char* cached, const QuadPart& part) {
    for (std::int64_t i = 0; i < part.channels; i += Avx512::lanes) {
        const auto* pairs = reinterpret_cast<const float*>(cached + part.rows->scales_offset_bytes) + i;
        const __m512i of_channels = _mm512_castps_si512(Avx512::load_first(pairs, larger(part.rows->width - i, 0)));
        Avx512::store(part.scale + i, Avx512::even_bf16(of_channels));
        Avx512::store(part.zero + i, Avx512::odd_bf16(of_channels));
    }
}

/// The rows of 16 tokens from `token` on, of which 16 bytes from any fourth word on may be read.
inline const char* token_rows(const char* cached, const QuadPart& part, std::int64_t token) {
    const std::int64_t row_bytes = part.rows->row_bytes;
    const char* const rows = cached + part.rows->offset_bytes + token * row_bytes;
    const bool end_in_row = round_up(part.words * 4, 16) <= row_bytes;
    if (token < unchecked_tokens || end_in_row) return rows;
    std::memcpy(part.last_rows, rows, static_cast<std::size_t>(Avx512::lanes * row_bytes));
    return part.last_rows;
}

/// Four words of 16 tokens each.
__attribute__((always_inline)) inline void load_token_words(const char* rows, std::int64_t row_bytes,
                                                            __m512i (&words)[4]) {
    __m512i of_tokens[4];  // lane l of the i-th: token 4 l + i
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) of_tokens[i] = load_four_rows(rows + i * row_bytes, 4 * row_bytes);
    transpose_lanes(of_tokens, words);
}

/// A page's codes to quads.
template <bool has_digits>
[[gnu::noinline]] void load_quads(const char* cached, const QuadPart& part) {
    constexpr std::int64_t word_bytes = (has_digits ? 2 : 1) * most_tile_tokens * per_quad;
    const __m512i low_bits = _mm512_set1_epi8(0x0f);
    const std::int64_t row_bytes = part.rows->row_bytes;
    for (std::int64_t token = 0; token < most_tile_tokens; token += Avx512::lanes) {
        const char* rows = token_rows(cached, part, token);
        char* to = part.keys + token * per_quad;
        for (std::int64_t word = 0; word < part.words; word += 4, rows += 16, to += 4 * word_bytes) {
            __m512i words[4];
            load_token_words(rows, row_bytes, words);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                char* const at = to + i * word_bytes;
                if constexpr (has_digits) {
                    _mm512_store_si512(at, _mm512_and_si512(words[i], low_bits));
                    _mm512_store_si512(at + word_bytes / 2, _mm512_and_si512(_mm512_srli_epi16(words[i], 4), low_bits));
                } else {
                    _mm512_store_si512(at, words[i]);
                }
            }
        }
    }
}

}  // namespace
}  // namespace mha2mla::kernels
