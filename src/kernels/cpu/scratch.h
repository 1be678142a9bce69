#pragma once

#include <cstdint>

#include "kernels/kernels.h"

/// Private memory of a call, as kernels/scratch.cpp counts it and the kernels use it. `static`, since files compiled
/// for an instruction set include this (see vector_avx2.h).
namespace mha2mla::kernels {

static constexpr std::int64_t round_up(std::int64_t x, std::int64_t unit) { return (x + unit - 1) / unit * unit; }

static constexpr std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

/// Bytes of a row of activations rounded to bf16: an odd number of cache lines, so that rows that are read side by side
/// do not compete for the same cache sets.
static constexpr std::int64_t rounded_row_bytes(std::int64_t inputs) {
    return (round_up(inputs * 2, 64) / 64 | 1) * 64;
}

/// Up to so many rows, bf16 weights take longer from memory than their products with floats: nothing is rounded.
inline constexpr std::int64_t most_rows_in_floats = 5;

/// Coded bf16 weights are written out so many tiles at a time, where there are more rows.
inline constexpr std::int64_t tiles_written_out = 2;

/// Bytes of these tiles, the last of them in whole blocks of 8 inputs.
static constexpr std::int64_t written_out_bytes(std::int64_t inputs) {
    return tiles_written_out * round_up(inputs, 8) * tile_rows * 2;
}

/// Attention works on blocks of query rows times tiles of keys.
inline constexpr std::int64_t most_block_rows = 32;
inline constexpr std::int64_t most_tile_tokens = 64;
/// From a row's scores to the next's, where rows are side by side: whole vectors of tokens may end beyond the tile.
inline constexpr std::int64_t score_stride = most_tile_tokens + 8;

/// Sizes in 32-bit words and offsets in bytes of the parts of attention's scratch.
struct AttentionScratch {
    std::int64_t key_words;    // of a key as floats, which may be a value, too: whole vectors, wherever its parts begin
    std::int64_t value_words;  // of a value as floats: an odd number of 32s, so that rows do not share cache sets
    std::int64_t query;        // [key_width] or [key_width / 2] words of each row of the block, in whole vectors
    std::int64_t scores;       // [most_tile_tokens, block rows] or [block rows, score_stride]
    std::int64_t probabilities;
    std::int64_t state;   // running max, running sum, rescaling factor, visible keys: [block rows] each
    std::int64_t sums;    // [block rows, value_words]
    std::int64_t keys;    // [most_tile_tokens, key_words]
    std::int64_t values;  // [most_tile_tokens, value_words]; as bf16 two halves: interleaved values, rows
    std::int64_t codes;   // of CodeTile (AVX2), CodeKeys or QuadKeys (AVX-512) or CodePage (AMX)
    std::int64_t bytes;
};

/// The parts of CodeTile and of CodePage: at most two columns for each channel, in blocks of up to 64 for each part.
/// Those of CodeKeys and QuadKeys, which have no column twice, fit in.
static constexpr std::int64_t code_scratch_bytes(std::int64_t key_width, std::int64_t value_width) {
    const std::int64_t columns = round_up(2 * key_width + 2 * 63, 64);
    const std::int64_t value_bytes = round_up(value_width, 32);
    const std::int64_t of_tokens = most_tile_tokens * (columns + value_bytes);
    const std::int64_t of_rows = most_block_rows * (5 * columns + larger(most_tile_tokens, 32 * 4) + 4 * 4);
    return of_tokens + of_rows + 4 * (3 * columns + 2 * value_bytes);
}

static constexpr AttentionScratch attention_scratch(std::int64_t key_width, std::int64_t value_width) {
    AttentionScratch parts{};
    parts.value_words = (round_up(value_width, 32) / 32 | 1) * 32;
    parts.key_words = larger(round_up(key_width + group_unit - 1, 16), parts.value_words);
    parts.scores = parts.query + round_up(key_width, 32) * most_block_rows * 4;
    parts.probabilities = parts.scores + score_stride * most_block_rows * 4;
    parts.state = parts.probabilities + most_tile_tokens * most_block_rows * 4;
    parts.sums = parts.state + 4 * most_block_rows * 4;
    parts.keys = parts.sums + most_block_rows * parts.value_words * 4;
    parts.values = parts.keys + most_tile_tokens * parts.key_words * 4;
    parts.codes = parts.values + most_tile_tokens * parts.value_words * 4;
    parts.bytes = parts.codes + code_scratch_bytes(key_width, value_width);
    return parts;
}

}  // namespace mha2mla::kernels
