#pragma once

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/coded_rows_avx2.h"
#include "kernels/cpu/elementwise.h"

/// Attention in floats on AVX2: cached bf16 is widened, and codes are de-quantized, tile by tile and once for all rows.
/// Included by *_avx2.cpp, and of internal linkage, as vector_avx2.h says.
///
/// Scores and probabilities lie as [rows][score_stride], so that a vector holds eight tokens of a row: no lane is
/// wasted however few rows there are. Both products work on three rows times four vectors, twelve sums in registers:
/// scores on four tokens, whose vectors run along the channels and are added up at the end; values on 32 channels.
namespace mha2mla::kernels {
namespace {

constexpr int rows_at_once = 3;
constexpr std::int64_t tokens_at_once = 4;
constexpr std::int64_t channels_at_once = 32;

/// A tile of floats. Keys are [tokens, key_stride], zero from the key's width up to a whole vector.
struct FloatTile {
    float* keys;
    std::int64_t key_stride;
    float* values;
    std::int64_t value_stride;
    std::int64_t tokens;
};

template <class Element>
void load_numbers(const AttentionParams& params, const KeyTile& cached, const FloatTile& tile) {
    const RowRange range{0, cached.tokens};
    widen_rows<Element>(cached.keys, cached.key_stride, range, params.key_width, {tile.keys, tile.key_stride});
    if (cached.is_latent()) return;
    widen_rows<Element>(cached.values, cached.value_stride, range, params.value_width,
                        {tile.values, tile.value_stride});
}

void load_sealed(const AttentionParams& params, const KeyTile& cached, const FloatTile& tile) {
    const RowRange range{cached.first_token, cached.tokens};
    float* keys = tile.keys;
    for (const CodedRows& part : params.sealed.keys) {
        load_coded(part, cached.keys, range, {keys, tile.key_stride});
        keys += part.width;
    }
    if (cached.is_latent()) return;
    load_coded(params.sealed.values, cached.values, range, {tile.values, tile.value_stride});
}

FloatTile load_tile(const AttentionParams& params, const RowBlock& block, const KeyTile& cached) {
    FloatTile tile{.keys = reinterpret_cast<float*>(block.keys),
                   .key_stride = block.parts.key_words,
                   .values = reinterpret_cast<float*>(cached.is_latent() ? block.keys : block.values),
                   .value_stride = cached.is_latent() ? block.parts.key_words : block.parts.value_words,
                   .tokens = cached.tokens};
    if (cached.sealed) {
        load_sealed(params, cached, tile);
    } else if (params.dtype == core::DType::f32) {
        load_numbers<float>(params, cached, tile);
    } else {
        load_numbers<core::bf16>(params, cached, tile);
    }
    for (std::int64_t t = 0; t < tile.tokens; ++t) {
        for (std::int64_t i = params.key_width; i % 8 != 0; ++i) tile.keys[t * tile.key_stride + i] = 0;
    }
    return tile;
}

/// The sums of the lanes of four vectors.
__m128 sums_of(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256 halves = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

float* scores_of(const RowBlock& block, std::int64_t row) { return block.scores + row * score_stride; }

/// Queries lie as [rows][vectors of channels].
std::int64_t query_floats(const AttentionParams& params) { return round_up(params.key_width, 8); }

/// Scores of `Rows` rows and four tokens, of which the last may be the same.
template <int Rows>
void score(const RowBlock& block, const float* const (&keys)[tokens_at_once], std::int64_t floats, std::int64_t row,
           std::int64_t token) {
    const float* query = reinterpret_cast<const float*>(block.query) + row * floats;
    __m256 sums[Rows][tokens_at_once];
    for (auto& of_row : sums) {
        for (__m256& sum : of_row) sum = Avx2::zero();
    }
    for (std::int64_t i = 0; i < floats; i += 8) {
        __m256 q[Rows];
#pragma GCC unroll 3
        for (int r = 0; r < Rows; ++r) q[r] = Avx2::load(query + r * floats + i);
#pragma GCC unroll 4
        for (int t = 0; t < tokens_at_once; ++t) {
            const __m256 key = Avx2::load(keys[t] + i);
#pragma GCC unroll 3
            for (int r = 0; r < Rows; ++r) sums[r][t] = Avx2::fma(q[r], key, sums[r][t]);
        }
    }
#pragma GCC unroll 3
    for (int r = 0; r < Rows; ++r) {
        _mm_storeu_ps(scores_of(block, row + r) + token, sums_of(sums[r][0], sums[r][1], sums[r][2], sums[r][3]));
    }
}

void score_tile(const AttentionParams& params, const RowBlock& block, const FloatTile& tile) {
    const std::int64_t floats = query_floats(params);
    for (std::int64_t token = 0; token < tile.tokens; token += tokens_at_once) {
        fetch_ahead(params, block, token, tokens_at_once);
        const float* keys[tokens_at_once];
        // Beyond the tile's end: the last token again, whose scores nobody reads.
        for (int t = 0; t < tokens_at_once; ++t) {
            keys[t] = tile.keys + smaller(token + t, tile.tokens - 1) * tile.key_stride;
        }
        for_each_rows<rows_at_once>(
            block.rows, [&](std::int64_t row, auto rows) { score<rows()>(block, keys, floats, row, token); });
    }
}

/// Adds the caller's logits of the first tokens of a tile.
void add_logit_bias(const float* bias, std::int64_t tokens, float* scores) {
    std::int64_t t = 0;
    for (; t + 8 <= tokens; t += 8) {
        Avx2::store(scores + t, Avx2::fma(Avx2::load(bias + t), Avx2::set(log2_of_e), Avx2::load(scores + t)));
    }
    for (; t < tokens; ++t) scores[t] += bias[t] * log2_of_e;
}

float max_of(__m256 x) {
    __m128 max = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    max = _mm_max_ps(max, _mm_movehl_ps(max, max));
    return _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)));
}

/// A row's scores to probabilities relative to its running maximum; its sums so far are to be rescaled. Returns the sum
/// of the probabilities.
float softmax_row(const RowBlock& block, std::int64_t row, std::int64_t tokens) {
    float* scores = scores_of(block, row);
    __m256 vector_max = Avx2::set(block.max[row]);
    for (std::int64_t t = 0; t < tokens; t += 8) vector_max = Avx2::max(vector_max, Avx2::load(scores + t));
    const float max = max_of(vector_max);
    // A row that has seen no key yet: any finite number makes all its probabilities zero.
    const __m256 reference = Avx2::set(max > -__builtin_inff() ? max : 0);
    const __m256 rescale = exp2_of<Avx2, 6>(Avx2::sub(Avx2::set(block.max[row]), reference));
    __m256 sum = Avx2::zero();
    for (std::int64_t t = 0; t < tokens; t += 8) {
        const __m256 p = exp2_of<Avx2, 6>(Avx2::sub(Avx2::load(scores + t), reference));
        Avx2::store(scores + t, p);
        sum = Avx2::add(sum, p);
    }
    block.max[row] = max;
    block.rescale[row] = _mm256_cvtss_f32(rescale);
    return Avx2::sum(sum);
}

/// Scores of a tile to probabilities. `round(row, sum)` may change those of a row, and returns their sum then. Not
/// inlined: its constants would take registers of the loops around it.
template <class Round>
[[gnu::noinline]] void softmax_tile(const AttentionParams& params, const RowBlock& block, const KeyTile& tile,
                                    const Round& round) {
    const std::int64_t whole = round_up(tile.tokens, 8);
    const float* const bias = params.logit_bias == nullptr ? nullptr : logit_bias(params, block, tile);
    for (std::int64_t row = 0; row < block.rows; ++row) {
        float* scores = scores_of(block, row);
        const std::int64_t seen = seen_tokens(block, tile, row);
        if (bias != nullptr) add_logit_bias(bias + row * params.logit_bias_stride, seen, scores);
        for (std::int64_t t = seen; t < whole; ++t) scores[t] = -__builtin_inff();
        const float sum = round(row, softmax_row(block, row, whole));
        block.sum[row] = block.sum[row] * block.rescale[row] + sum;
    }
}

/// Rows times 32 channels: sums = sums * rescale + probabilities . values.
template <int Rows>
void add_values(const RowBlock& block, const FloatTile& tile, std::int64_t row, std::int64_t channel) {
    constexpr int vectors = channels_at_once / 8;
    float* at = block.sums + row * block.parts.value_words + channel;
    const float* p = scores_of(block, row);
    __m256 sums[Rows][vectors];
#pragma GCC unroll 3
    for (int r = 0; r < Rows; ++r) {
        const __m256 rescale = Avx2::set(block.rescale[row + r]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            sums[r][v] = Avx2::mul(Avx2::load(at + r * block.parts.value_words + v * 8), rescale);
        }
    }
    const float* values = tile.values + channel;
    for (std::int64_t t = 0; t < tile.tokens; ++t, values += tile.value_stride) {
        __m256 probability[Rows];
#pragma GCC unroll 3
        for (int r = 0; r < Rows; ++r) probability[r] = Avx2::set(p[r * score_stride + t]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            const __m256 value = Avx2::load(values + v * 8);
#pragma GCC unroll 3
            for (int r = 0; r < Rows; ++r) sums[r][v] = Avx2::fma(probability[r], value, sums[r][v]);
        }
    }
#pragma GCC unroll 3
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) Avx2::store(at + r * block.parts.value_words + v * 8, sums[r][v]);
    }
}

/// Packs the scaled queries and what each row sees.
void load_queries(const AttentionParams& params, const RowBlock& block) {
    const std::int64_t floats = query_floats(params);
    for (std::int64_t r = 0; r < block.rows; ++r) {
        const std::int64_t row = block.first_row + r;
        block.visible[r] = static_cast<float>(params.visible[row]);  // exact: positions stay below 2^24
        float* query = reinterpret_cast<float*>(block.query) + r * floats;
        const float* q = params.q + row * params.q_stride;
        for (std::int64_t i = 0; i < params.key_width; ++i) query[i] = q[i] * log2_scale(params);
        for (std::int64_t i = params.key_width; i < floats; ++i) query[i] = 0;
    }
}

/// The sum of a row's probabilities as they are.
constexpr auto unrounded = [](std::int64_t, float sum) { return sum; };

/// Scores, probabilities and values of a tile.
void attend_tile(const AttentionParams& params, const RowBlock& block, const KeyTile& cached) {
    const FloatTile tile = load_tile(params, block, cached);
    score_tile(params, block, tile);
    softmax_tile(params, block, cached, unrounded);
    for (std::int64_t channel = 0; channel < params.value_width; channel += channels_at_once) {
        for_each_rows<rows_at_once>(
            block.rows, [&](std::int64_t row, auto rows) { add_values<rows()>(block, tile, row, channel); });
    }
}

}  // namespace
}  // namespace mha2mla::kernels
