#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/code_attention_amx.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/tiles_amx.h"
#include "kernels/cpu/transpose_avx512.h"

// Attention of some rows over bf16 and sealed tokens, which are rounded to bf16 (RowsInTiles) or multiplied as codes
// (RowsOverCodesInTiles). Both products of a tile of keys are those of tile registers. Of numbers, the softmax between
// them is that of attention_lanes.h. Scores are keys times queries, as they lie: [tokens][rows]. Values are
// probabilities times pairs of tokens, so the probabilities are transposed and the values interleaved, once for all
// rows of the block.

namespace mha2mla::kernels {
namespace {

constexpr std::int64_t step_channels = 32;  // or tokens, where values are multiplied
constexpr std::int64_t tile_tokens = 16;
constexpr std::int64_t probability_row_bytes = most_tile_tokens * 2;

/// Attention of up to 16 * RowVectors rows.
template <int RowVectors>
struct RowsInTiles {
    using Lanes = RowsInLanes<Avx512, Bf16Words, RowVectors>;
    static constexpr std::int64_t most_rows = Lanes::most_rows;
    static constexpr std::int64_t word_bytes = most_rows * 4;  // from one word of all rows to the next

    static void load(const AttentionParams& params, const RowBlock& block) {
        Lanes::load(params, block);
        const std::int64_t words = (params.key_width + 1) / 2;
        for (std::int64_t w = words; w < round_up(params.key_width, step_channels) / 2; ++w) {
            __builtin_memset(block.query + w * word_bytes, 0, word_bytes);
        }
    }

    static constexpr auto read = Bf16Words::read;

    static void find_probabilities(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        fetch_ahead(params, block, 0, most_tile_tokens);  // quarters are no faster here
        score_tile(params, block, whole_keys(params, block, tile), tile.tokens);
        Lanes::finish_probabilities(params, block, tile);
    }

    static void add_values(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        arrange_probabilities(block, tile.tokens);
        for (std::int64_t channel = 0; channel < params.value_width; channel += 2 * tile_tokens) {
            interleave(block, tile, channel, params.value_width - channel);
            before_tiles_load();
            add_channels(block, tile.tokens, channel);
        }
    }

private:
    struct Keys {
        const char* rows;
        std::int64_t stride;
    };

    /// Keys that tile registers can load: in whole groups of tokens and of channels. A copy where they are not; those
    /// in the scratch are.
    static Keys whole_keys(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        const std::int64_t channels = round_up(params.key_width, step_channels);
        const bool is_whole = tile.tokens % tile_tokens == 0 && channels == params.key_width;
        if (is_whole || tile.keys == block.keys) return {tile.keys, tile.key_stride};
        const auto width = static_cast<std::size_t>(params.key_width * 2);
        const auto rest = static_cast<std::size_t>((channels - params.key_width) * 2);
        for (std::int64_t t = 0; t < tile.tokens; ++t) {
            char* row = block.keys + t * channels * 2;
            __builtin_memcpy(row, tile.keys + t * tile.key_stride, width);
            __builtin_memset(row + width, 0, rest);
        }
        return {block.keys, channels * 2};
    }

    /// Of keys [tokens]: [tokens][rows]. Those beyond the tokens are not numbers that anybody reads.
    static void score_tile(const AttentionParams& params, const RowBlock& block, const Keys& keys,
                           std::int64_t tokens) {
        before_tiles_load();
        for (std::int64_t token = 0; token < tokens; token += 2 * tile_tokens) {
            const bool two = token + tile_tokens < tokens;
            const char* const first = keys.rows + token * keys.stride;
            TilePair rows{first, two ? first + tile_tokens * keys.stride : first, keys.stride};
            TilePair query{block.query, block.query + tile_row_bytes, word_bytes};
            clear_sums();
            for (std::int64_t channel = 0; channel < params.key_width; channel += step_channels) {
                add_products<2, RowVectors>(rows, query);
                rows = rows.ahead(tile_row_bytes);
                query = query.ahead(16 * word_bytes);
            }
            float* const scores = block.scores + token * most_rows;
            float* const next_scores = scores + tile_tokens * most_rows;
            _tile_stored(0, scores, word_bytes);
            if (RowVectors > 1) _tile_stored(1, scores + 16, word_bytes);
            if (two) _tile_stored(2, next_scores, word_bytes);
            if (two && RowVectors > 1) _tile_stored(3, next_scores + 16, word_bytes);
        }
    }

    /// From [pairs of tokens][rows] to [rows][tokens], in the place of the scores, with zeros up to a whole step.
    static void arrange_probabilities(const RowBlock& block, std::int64_t tokens) {
        for (std::int64_t pair = (tokens + 1) / 2; pair < round_up(tokens, step_channels) / 2; ++pair) {
            __builtin_memset(block.probabilities + pair * word_bytes, 0, word_bytes);
        }
        for (std::int64_t token = 0; token < tokens; token += step_channels) {
            for (std::int64_t v = 0; v < RowVectors; ++v) {
                transpose_words(block.probabilities + token / 2 * word_bytes + v * tile_row_bytes, word_bytes,
                                probabilities(block, v * 16) + token * 2, probability_row_bytes);
            }
        }
    }

    static char* probabilities(const RowBlock& block, std::int64_t row) {
        return reinterpret_cast<char*>(block.scores) + row * probability_row_bytes;
    }

    /// 32 channels as [pairs of tokens][channels][2], with zeros up to a whole step.
    static void interleave(const RowBlock& block, const KeyTile& tile, std::int64_t channel, std::int64_t channels) {
        char* at = block.values;
        for (std::int64_t t = 0; t < round_up(tile.tokens, step_channels); t += 2, at += 2 * tile_row_bytes) {
            __m512i words[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
            if (t < tile.tokens) Bf16Words::load_values(tile, t, channel, channels, words);
            Bf16Words::store(at, words[0]);
            Bf16Words::store(at + tile_row_bytes, words[1]);
        }
    }

    /// sums = sums * rescale + probabilities . values, of 32 channels.
    static void add_channels(const RowBlock& block, std::int64_t tokens, std::int64_t channel) {
        const std::int64_t stride = block.parts.value_words * 4;
        float* const sums = block.sums + channel;
        float* const second_sums = sums + 16 * block.parts.value_words;
        for (std::int64_t r = 0; r < block.rows; ++r) {
            const __m512 rescale = Avx512::set(block.rescale[r]);
            float* const row = sums + r * block.parts.value_words;
            Avx512::store(row, Avx512::mul(Avx512::load(row), rescale));
            Avx512::store(row + 16, Avx512::mul(Avx512::load(row + 16), rescale));
        }
        before_tiles_load();
        _tile_loadd(0, sums, stride);
        _tile_loadd(1, sums + 16, stride);
        if (RowVectors == 2) {
            _tile_loadd(2, second_sums, stride);
            _tile_loadd(3, second_sums + 16, stride);
        }
        TilePair rows{probabilities(block, 0), probabilities(block, 16), probability_row_bytes};
        TilePair values{block.values, block.values + tile_row_bytes, 2 * tile_row_bytes};
        for (std::int64_t token = 0; token < tokens; token += step_channels) {
            add_products<RowVectors, 2>(rows, values);
            rows = rows.ahead(tile_row_bytes);
            values = values.ahead(2 * tile_bytes);
        }
        _tile_stored(0, sums, stride);
        _tile_stored(1, sums + 16, stride);
        if (RowVectors == 1) return;
        _tile_stored(2, second_sums, stride);
        _tile_stored(3, second_sums + 16, stride);
    }
};

/// The same where codes of sealed pages can be multiplied as they are.
template <int RowVectors>
using RowsOverCodesInTiles = RowsOverCodes<RowsInTiles<RowVectors>, CodesInTiles<RowVectors>>;

// So few rows leave most of a tile idle.
constexpr std::int64_t most_rows_in_vectors = 4;

}  // namespace

void amx::attention(const AttentionParams& params) {
    if (!fits_bf16(params) || params.rows <= most_rows_in_vectors) return avx512::attention(params);
    // Each block of rows reads the codes anew: many rows are faster by numbers.
    const bool in_codes = params.rows <= most_block_rows && has_sealed_blocks(params) && multiplies_codes(params);
    const Tiles tiles(whole_tiles);
    in_codes ? attend_in_blocks<RowsOverCodesInTiles>(params) : attend_in_blocks<RowsInTiles>(params);
}

}  // namespace mha2mla::kernels
