#pragma once

#include <utility>

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/elementwise.h"

/// Attention with a query row in each vector lane, over the vector operations of an instruction set. Per tile of keys
/// two small matrix products: scores (packed queries times broadcast words of the keys: no horizontal sums), and
/// values (broadcast probabilities times vectors of channels).
///
/// Both work on 32-bit words; a `Words` policy says what a word is, such as a pair of bf16.
///   Word                       a vector of words
///   width                      channels of a word of the queries and keys, tokens of a word of the probabilities
///   read                       a tile, in the scratch if it is sealed
///   pack_query                 a vector of rows, scaled, into at most a vector of words, `stride` bytes apart
///   load, broadcast            words
///   broadcast_last             the last word of a key of odd width
///   exp_degree                 of exp2_of
///   add_columns                y[column][row] += factor * x[row][column], for a vector of rows and columns at most
///   dot                        sums plus the product of words
///   pack_probabilities         the probabilities of `width` tokens
///   ones                       words of probabilities 1
///   load_values                a word of tokens times vectors of channels
/// Instances have internal linkage, since `Simd` and `Words` have.
namespace mha2mla::kernels {

/// Scores of a few tokens for all rows: [Tokens, RowVectors * lanes].
template <class Simd, class Words, int RowVectors, int Tokens>
void score_tokens(const RowBlock& block, const char* const (&keys)[Tokens], std::int64_t key_width, float* scores) {
    using V = typename Simd::Vector;
    constexpr std::int64_t vector_bytes = Simd::lanes * 4;
    const std::int64_t words = key_width / Words::width;
    V sums[Tokens][RowVectors];
#pragma GCC unroll 8
    for (int t = 0; t < Tokens; ++t) {
#pragma GCC unroll 2
        for (int v = 0; v < RowVectors; ++v) sums[t][v] = Simd::zero();
    }
    const auto step = [&](std::int64_t w, auto broadcast) __attribute__((always_inline)) {
        typename Words::Word query[RowVectors];
#pragma GCC unroll 2
        for (int v = 0; v < RowVectors; ++v) query[v] = Words::load(block.query + (w * RowVectors + v) * vector_bytes);
#pragma GCC unroll 8
        for (int t = 0; t < Tokens; ++t) {
            const typename Words::Word key = broadcast(keys[t] + w * 4);
#pragma GCC unroll 2
            for (int v = 0; v < RowVectors; ++v) sums[t][v] = Words::dot(sums[t][v], query[v], key);
        }
    };
    for (std::int64_t w = 0; w < words; ++w) step(w, Words::broadcast);
    if (key_width % Words::width != 0) step(words, Words::broadcast_last);
#pragma GCC unroll 8
    for (int t = 0; t < Tokens; ++t) {
#pragma GCC unroll 2
        for (int v = 0; v < RowVectors; ++v) Simd::store(scores + (t * RowVectors + v) * Simd::lanes, sums[t][v]);
    }
}

template <class Simd, class Words, int RowVectors>
void score_tile(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
    constexpr int group = Simd::accumulators >= 8 * RowVectors ? 8 : 4;
    for (std::int64_t first = 0; first < tile.tokens; first += group) {
        fetch_ahead(params, block, first, group);
        const char* keys[group];
        // Beyond the tile's end: the last token again, whose scores nobody reads.
        for (int t = 0; t < group; ++t) keys[t] = tile.keys + smaller(first + t, tile.tokens - 1) * tile.key_stride;
        float* scores = block.scores + first * RowVectors * Simd::lanes;
        score_tokens<Simd, Words, RowVectors, group>(block, keys, params.key_width, scores);
    }
}

/// Adds the caller's logits. Lanes without a row keep their zeros.
template <class Simd, class Words, int RowVectors>
void add_logit_bias(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
    constexpr std::int64_t token_floats = RowVectors * Simd::lanes;
    const float* const of_tile = logit_bias(params, block, tile);
    for (std::int64_t row = 0; row < block.rows; row += Simd::lanes) {
        const float* bias = of_tile + row * params.logit_bias_stride;
        const std::int64_t rows = smaller(Simd::lanes, block.rows - row);
        for (std::int64_t t = 0; t < tile.tokens; t += Simd::lanes) {
            const std::int64_t tokens = smaller(Simd::lanes, tile.tokens - t);
            Words::add_columns({bias + t, params.logit_bias_stride, rows, tokens}, log2_of_e,
                               block.scores + t * token_floats + row, token_floats);
        }
    }
}

/// Scores of keys that a row does not see become -inf.
template <class Simd, int RowVectors>
void mask_scores(const RowBlock& block, const KeyTile& tile) {
    using V = typename Simd::Vector;
    for (int v = 0; v < RowVectors; ++v) {
        const V visible = Simd::load(block.visible + v * Simd::lanes);
        for (std::int64_t t = 0; t < tile.tokens; ++t) {
            float* scores = block.scores + (t * RowVectors + v) * Simd::lanes;
            const V key = Simd::set(static_cast<float>(tile.first_key + t));
            Simd::store(scores, Simd::where_greater(visible, key, Simd::load(scores), Simd::set(-__builtin_inff())));
        }
    }
}

/// Scores to probabilities relative to the running maximum; the sums so far are to be rescaled by block.rescale.
template <class Simd, class Words, int RowVectors>
void softmax_tile(const RowBlock& block, const KeyTile& tile) {
    using V = typename Simd::Vector;
    constexpr std::int64_t token_floats = RowVectors * Simd::lanes;
    const V lowest = Simd::set(-__builtin_inff());
    for (int v = 0; v < RowVectors; ++v) {
        float* scores = block.scores + v * Simd::lanes;
        const V old_max = Simd::load(block.max + v * Simd::lanes);
        V max = old_max;
        for (std::int64_t t = 0; t < tile.tokens; ++t) max = Simd::max(max, Simd::load(scores + t * token_floats));
        // A row that has seen no key yet: any finite number makes all its probabilities zero.
        const V reference = Simd::where_greater(max, lowest, max, Simd::zero());
        const V rescale = exp2_of<Simd, Words::exp_degree>(Simd::sub(old_max, reference));
        V sum = Simd::mul(Simd::load(block.sum + v * Simd::lanes), rescale);
        for (std::int64_t t = tile.tokens; t % Words::width != 0; ++t) Simd::store(scores + t * token_floats, lowest);
        for (std::int64_t t = 0; t < tile.tokens; t += Words::width) {
            V p[Words::width];
            for (int i = 0; i < Words::width; ++i) {
                p[i] =
                    exp2_of<Simd, Words::exp_degree>(Simd::sub(Simd::load(scores + (t + i) * token_floats), reference));
            }
            const typename Words::Word words = Words::pack_probabilities(p);
            Words::store(block.probabilities + (t / Words::width * RowVectors + v) * Simd::lanes * 4, words);
            // The sum of the rounded probabilities: those that the values are multiplied with.
            sum = Words::dot(sum, words, Words::ones());
        }
        Simd::store(block.max + v * Simd::lanes, max);
        Simd::store(block.sum + v * Simd::lanes, sum);
        Simd::store(block.rescale + v * Simd::lanes, rescale);
    }
}

/// From a row and a channel on; `channels` are left.
struct ValuePosition {
    std::int64_t row;
    std::int64_t channel;
    std::int64_t channels;
};

/// A few rows times two vectors of channels: sums = sums * rescale + probabilities . values. `asks`: for memory ahead,
/// with each step.
template <class Simd, class Words, bool asks, int Rows>
void add_values(const RowBlock& block, const KeyTile& tile, const ValuePosition& from, MemoryAhead& ahead) {
    using V = typename Simd::Vector;
    const auto [row, channel, channels] = from;
    const char* probabilities = block.probabilities + row * 4;
    float* at = block.sums + row * block.parts.value_words + channel;
    V sums[Rows][2];
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
        const V rescale = Simd::set(block.rescale[row + r]);
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            sums[r][v] = Simd::mul(Simd::load(at + r * block.parts.value_words + v * Simd::lanes), rescale);
        }
    }
    for (std::int64_t t = 0; t < tile.tokens; t += Words::width) {
        typename Words::Word values[2];
        Words::load_values(tile, t, channel, channels, values);
        if constexpr (asks) fetch_some(ahead);
        const char* p = probabilities + t / Words::width * block.probability_word_bytes;
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) {
            const typename Words::Word probability = Words::broadcast(p + r * 4);
            sums[r][0] = Words::dot(sums[r][0], probability, values[0]);
            sums[r][1] = Words::dot(sums[r][1], probability, values[1]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            Simd::store(at + r * block.parts.value_words + v * Simd::lanes, sums[r][v]);
        }
    }
}

template <class Simd, class Words, bool asks, int... RowsMinusOne>
void add_tile_values_by(const RowBlock& block, const KeyTile& tile, std::int64_t value_width, const MemoryRange& next,
                        std::integer_sequence<int, RowsMinusOne...>) {
    using Kernel = void (*)(const RowBlock&, const KeyTile&, const ValuePosition&, MemoryAhead&);
    constexpr Kernel by_rows[] = {add_values<Simd, Words, asks, RowsMinusOne + 1>...};
    constexpr std::int64_t most_rows = sizeof...(RowsMinusOne);
    constexpr std::int64_t channels = 2 * Simd::lanes;
    const std::int64_t groups = (block.rows + most_rows - 1) / most_rows;
    const std::int64_t steps_of_call = (tile.tokens + Words::width - 1) / Words::width;
    MemoryAhead ahead = in_steps(next, groups * ((value_width + channels - 1) / channels) * steps_of_call);
    for (std::int64_t channel = 0; channel < value_width; channel += channels) {
        for (std::int64_t group = 0; group < groups; ++group) {
            const std::int64_t row = block.rows * group / groups;
            const std::int64_t rows = block.rows * (group + 1) / groups - row;
            by_rows[rows - 1](block, tile, {row, channel, value_width - channel}, ahead);
        }
    }
}

/// Asks for `next` meanwhile, if that is anything.
template <class Simd, class Words>
void add_tile_values(const RowBlock& block, const KeyTile& tile, std::int64_t value_width,
                     const MemoryRange& next = {}) {
    constexpr std::make_integer_sequence<int, Simd::accumulators / 2> rows;
    next.bytes == 0 ? add_tile_values_by<Simd, Words, false>(block, tile, value_width, next, rows)
                    : add_tile_values_by<Simd, Words, true>(block, tile, value_width, next, rows);
}

/// Attention of up to RowVectors * lanes rows.
template <class Simd, class Words, int RowVectors>
struct RowsInLanes {
    static constexpr std::int64_t most_rows = RowVectors * Simd::lanes;

    /// Packs the queries and the limits of what each row sees; lanes without a row get zeros and see every key.
    static void load(const AttentionParams& params, const RowBlock& block) {
        const float* const q = params.q + block.first_row * params.q_stride;
        const std::int64_t words = (params.key_width + Words::width - 1) / Words::width;
        for (std::int64_t v = 0; v < RowVectors; ++v) {
            const std::int64_t row = v * Simd::lanes;
            const std::int64_t rows = smaller(Simd::lanes, block.rows - row);
            for (std::int64_t w = 0; w < words; w += Simd::lanes) {
                const std::int64_t channel = w * Words::width;
                Words::pack_query(
                    {q + row * params.q_stride + channel, params.q_stride, rows, params.key_width - channel},
                    log2_scale(params), block.query + (w * most_rows + row) * 4, most_rows * 4);
            }
        }
        for (std::int64_t r = 0; r < most_rows; ++r) {
            // Exact as floats: positions stay below 2^24.
            block.visible[r] =
                r < block.rows ? static_cast<float>(params.visible[block.first_row + r]) : __builtin_inff();
        }
    }

    static constexpr auto read = Words::read;

    static void find_probabilities(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        score_tile<Simd, Words, RowVectors>(params, block, tile);
        finish_probabilities(params, block, tile);
    }

    /// From scores.
    static void finish_probabilities(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        finish_scores(params, block, tile);
        softmax_tile<Simd, Words, RowVectors>(block, tile);
    }

    /// From products.
    static void finish_scores(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        if (params.logit_bias != nullptr) add_logit_bias<Simd, Words, RowVectors>(params, block, tile);
        if (tile.first_key + tile.tokens > block.all_visible) mask_scores<Simd, RowVectors>(block, tile);
    }

    static void add_values(const AttentionParams& params, const RowBlock& block, const KeyTile& tile) {
        add_tile_values<Simd, Words>(block, tile, params.value_width);
    }
};

/// Rows [first_row, first_row + rows) over all keys they see. `Rows` finds the probabilities of a tile, and adds its
/// values to the sums; before, it may read the tile into the scratch.
template <class Rows>
void attend_rows(const AttentionParams& params, std::int64_t first_row, std::int64_t rows) {
    RowBlock block = row_block(params, first_row, rows);
    block.probability_word_bytes = Rows::most_rows * 4;
    begin(params, block);
    Rows::load(params, block);
    for (std::int64_t key = params.first_key; key < block.end_key;) {
        const KeyTile tile = Rows::read(params, block, tile_at(params, key, block.end_key));
        key += tile.tokens;
        block.next = next_tile(params, block, key);
        Rows::find_probabilities(params, block, tile);
        Rows::add_values(params, block, tile);
    }
    write_out(params, block);
}

/// All rows, by `Rows` of one or two vectors.
template <template <int> class Rows>
void attend_in_blocks(const AttentionParams& params) {
    for (std::int64_t row = 0; row < params.rows; row += Rows<2>::most_rows) {
        const std::int64_t rows = smaller(Rows<2>::most_rows, params.rows - row);
        if (rows > Rows<1>::most_rows) {
            attend_rows<Rows<2>>(params, row, rows);
        } else {
            attend_rows<Rows<1>>(params, row, rows);
        }
    }
}

}  // namespace mha2mla::kernels
