#pragma once

#include <type_traits>

#include "kernels/cpu/fetch.h"
#include "kernels/cpu/scratch.h"
#include "kernels/kernels.h"

/// What the steps of attention share: a block of query rows and a tile of keys.
namespace mha2mla::kernels {

/// Scores are logarithms of base 2 inside: the query carries the factor.
inline constexpr float log2_of_e = 1.44269504f;
static inline float log2_scale(const AttentionParams& params) { return params.scale * log2_of_e; }

/// A run of consecutive keys that lie in one cache block.
struct KeyTile {
    const char* keys;
    std::int64_t key_stride;  // bytes
    const char* values;
    std::int64_t value_stride;  // bytes
    std::int64_t first_key;
    std::int64_t tokens;
    // Of a sealed block; `keys` and `values` are its starts then, and the tile begins at this token.
    bool sealed;
    std::int64_t first_token;

    /// The value is the first part of the key.
    bool is_latent() const { return keys == values; }
};

/// Among the keys of the call.
static inline bool has_sealed_blocks(const AttentionParams& params) {
    if (params.end_key <= params.first_key) return false;
    const std::int64_t last = (params.end_key - 1) / params.block_tokens;
    for (std::int64_t block = params.first_key / params.block_tokens; block <= last; ++block) {
        if (params.blocks[block].sealed) return true;
    }
    return false;
}

static inline bool has_digits_by_channel(const CodedRows& rows) {
    return rows.group == 0 && (rows.bits == 4 || rows.bits == 8);
}

/// Latents of 4 bits and rotary keys of 4 or 8, by channel: their codes can be multiplied.
static inline bool multiplies_codes(const AttentionParams& params) {
    if (params.end_key <= params.first_key) return false;
    const KeyValueBlock& first = params.blocks[params.first_key / params.block_tokens];
    if (first.keys != first.values) return false;  // no latents
    const CodedRows& latent = params.sealed.keys[0];
    const CodedRows& rotary = params.sealed.keys[1];
    return has_digits_by_channel(latent) && latent.bits == 4 && latent.width == params.value_width &&
           (rotary.width == 0 || has_digits_by_channel(rotary));
}

/// Whether bf16 holds what is cached, as it is or rounded from codes.
static inline bool fits_bf16(const AttentionParams& params) {
    const SealedFormat& sealed = params.sealed;
    return params.dtype == core::DType::bf16 && sealed.keys[0].bits <= 16 && sealed.keys[1].bits <= 16 &&
           sealed.values.bits <= 16;
}

/// Query rows that pass over the keys together, and where their state lies in the scratch.
struct RowBlock {
    std::int64_t first_row;
    std::int64_t rows;
    std::int64_t end_key;      // keys from here on are seen by no row
    std::int64_t all_visible;  // keys below are seen by every row
    KeyTile next;              // read from memory while the current tile is computed; no tokens: nothing to do
    AttentionScratch parts;
    std::int64_t probability_word_bytes;  // from one word of tokens to the next
    char* query;
    float* scores;
    char* probabilities;
    float* max;
    float* sum;
    float* rescale;
    float* visible;
    float* sums;
    char* keys;
    char* values;
    char* codes;
};

/// Some rows of floats.
struct FloatBlock {
    const float* data;
    std::int64_t stride;
    std::int64_t rows;
    std::int64_t columns;
};

static inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

static inline KeyTile tile_at(const AttentionParams& params, std::int64_t key, std::int64_t end) {
    const KeyValueBlock& block = params.blocks[key / params.block_tokens];
    const std::int64_t token = key % params.block_tokens;
    const std::int64_t tokens = smaller(smaller(params.block_tokens - token, most_tile_tokens), end - key);
    const auto* keys = static_cast<const char*>(block.keys);
    const auto* values = static_cast<const char*>(block.values);
    if (block.sealed) return {keys, 0, values, 0, key, tokens, true, token};
    return {keys + token * params.key_stride_bytes,
            params.key_stride_bytes,
            values + token * params.value_stride_bytes,
            params.value_stride_bytes,
            key,
            tokens,
            false,
            token};
}

static inline RowBlock row_block(const AttentionParams& params, std::int64_t first_row, std::int64_t rows) {
    RowBlock block{};
    block.first_row = first_row;
    block.rows = rows;
    block.end_key = params.first_key;
    block.all_visible = params.end_key;
    for (std::int64_t row = first_row; row < first_row + rows; ++row) {
        const std::int64_t visible = smaller(params.visible[row], params.end_key);
        block.end_key = visible > block.end_key ? visible : block.end_key;
        block.all_visible = smaller(block.all_visible, visible);
    }
    block.parts = attention_scratch(params.key_width, params.value_width);
    auto* scratch = static_cast<char*>(params.scratch);
    block.query = scratch + block.parts.query;
    block.scores = reinterpret_cast<float*>(scratch + block.parts.scores);
    block.probabilities = scratch + block.parts.probabilities;
    block.max = reinterpret_cast<float*>(scratch + block.parts.state);
    block.sum = block.max + most_block_rows;
    block.rescale = block.sum + most_block_rows;
    block.visible = block.rescale + most_block_rows;
    block.sums = reinterpret_cast<float*>(scratch + block.parts.sums);
    block.keys = scratch + block.parts.keys;
    block.values = scratch + block.parts.values;
    block.codes = scratch + block.parts.codes;
    return block;
}

/// The caller's logits of the tile's keys, of the block's first row.
static inline const float* logit_bias(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
    const std::int64_t of_tile = tile.first_key / params.logit_bias_block_tokens - params.logit_bias_first_block;
    return params.logit_bias + of_tile * params.logit_bias_block_stride + block.first_row * params.logit_bias_stride +
           tile.first_key % params.logit_bias_block_tokens;
}

/// Of the tile's first tokens.
static inline std::int64_t seen_tokens(const RowBlock& block, const KeyTile& tile, std::int64_t row) {
    const auto visible = static_cast<std::int64_t>(block.visible[row]) - tile.first_key;
    return visible < 0 ? 0 : smaller(visible, tile.tokens);
}

/// The tile after `tile`. Only the first rows have to wait for memory: the others find the keys in the cache.
static inline KeyTile next_tile(const AttentionParams& params, const RowBlock& block, std::int64_t key) {
    if (block.first_row > 0 || key >= block.end_key) return KeyTile{};
    return tile_at(params, key, block.end_key);
}

/// Codes and scales of `tokens` rows. Those of channels come with the first.
[[gnu::always_inline]] static inline void fetch_coded(const CodedRows& rows, const char* block, std::int64_t token,
                                                      std::int64_t tokens) {
    fetch(block + rows.offset_bytes + token * rows.row_bytes, tokens * rows.row_bytes);
    if (rows.bits > 8) return;
    const std::int64_t scale_bytes = 2 * sizeof(core::bf16);
    const char* scales = block + rows.scales_offset_bytes;
    if (rows.group == 0) {
        fetch(scales, token == 0 ? rows.width * scale_bytes : 0);
    } else {
        const std::int64_t row_bytes = (rows.width + rows.group - 1) / rows.group * scale_bytes;
        fetch(scales + token * row_bytes, tokens * row_bytes);
    }
}

/// Asks for some tokens of the next tile. The processor's own prefetching loses track where a page's plane ends.
[[gnu::always_inline]] static inline void fetch_ahead(const AttentionParams& params, const RowBlock& block,
                                                      std::int64_t token, std::int64_t tokens) {
    const KeyTile& next = block.next;
    const std::int64_t end = smaller(token + tokens, next.tokens);
    if (next.sealed) {
        if (token >= end) return;
        const std::int64_t first = next.first_token + token;
        for (const CodedRows& part : params.sealed.keys) fetch_coded(part, next.keys, first, end - token);
        if (!next.is_latent()) fetch_coded(params.sealed.values, next.values, first, end - token);
        return;
    }
    const std::int64_t element = params.dtype == core::DType::f32 ? 4 : 2;
    for (std::int64_t t = token; t < end; ++t) {
        fetch(next.keys + t * next.key_stride, params.key_width * element);
        if (!next.is_latent()) fetch(next.values + t * next.value_stride, params.value_width * element);
    }
}

/// Asks for quarter 0 to 3 of the next tile: all of it at once would hold up what is computed meanwhile.
[[gnu::always_inline]] static inline void fetch_quarter(const AttentionParams& params, const RowBlock& block,
                                                        std::int64_t quarter) {
    constexpr std::int64_t tokens = most_tile_tokens / 4;
    fetch_ahead(params, block, quarter * tokens, tokens);
}

/// Calls visit(first row, constant number of rows) for all rows of the block, up to `Most` at a time.
template <int Most, class Visit>
static inline void for_each_rows(std::int64_t rows, const Visit& visit) {
    std::int64_t row = 0;
    for (; row + Most <= rows; row += Most) visit(row, std::integral_constant<int, Most>());
    if constexpr (Most > 1) {
        if (row < rows)
            for_each_rows<Most - 1>(rows - row, [&](std::int64_t next, auto few) { visit(row + next, few); });
    }
}

/// No key seen yet.
static inline void clear(const RowBlock& block) {
    for (std::int64_t row = 0; row < most_block_rows; ++row) {
        block.max[row] = -__builtin_inff();
        block.sum[row] = 0;
    }
    for (std::int64_t i = 0; i < block.rows * block.parts.value_words; ++i) block.sums[i] = 0;
}

/// What the block begins with: nothing, or what an earlier call wrote out.
static inline void begin(const AttentionParams& params, const RowBlock& block) {
    clear(block);
    if (!params.continues) return;
    for (std::int64_t r = 0; r < block.rows; ++r) {
        const std::int64_t row = block.first_row + r;
        const float* out = params.out + row * params.out_stride;
        for (std::int64_t i = 0; i < params.value_width; ++i) block.sums[r * block.parts.value_words + i] = out[i];
        block.max[r] = params.max[row] * log2_of_e;
        block.sum[r] = params.sum[row];
    }
}

static inline void write_out(const AttentionParams& params, const RowBlock& block) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
        const std::int64_t row = block.first_row + r;
        float* out = params.out + row * params.out_stride;
        for (std::int64_t i = 0; i < params.value_width; ++i) out[i] = block.sums[r * block.parts.value_words + i];
        params.max[row] = block.max[r] * 0.693147181f;  // back to base e
        params.sum[row] = block.sum[r];
    }
}

}  // namespace mha2mla::kernels
