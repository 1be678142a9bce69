#pragma once

#include "kernels/cpu/attention_block.h"

/// Attention in floats: the words of attention_lanes.h are floats, and cached bf16 is widened tile by tile.
namespace mha2mla::kernels {

static inline float widened(float x) { return x; }

static inline float widened(core::bf16 x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
    float value = 0;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

template <class Simd>
struct FloatWords {
    using Word = typename Simd::Vector;
    static constexpr int width = 1;
    static constexpr int exp_degree = 6;

    static Word load(const char* p) { return Simd::load(reinterpret_cast<const float*>(p)); }
    static void store(char* p, Word x) { Simd::store(reinterpret_cast<float*>(p), x); }
    static constexpr auto broadcast = [](const char* p) __attribute__((always_inline)) {
        return Simd::set(*reinterpret_cast<const float*>(p));
    };
    static constexpr auto broadcast_last = broadcast;
    static Word dot(Word sums, Word a, Word b) { return Simd::fma(a, b, sums); }
    static Word pack_probabilities(const Word (&p)[1]) { return p[0]; }
    static Word ones() { return Simd::set(1.0f); }

    static void pack_query(const float* q, const AttentionParams& params, std::uint32_t* words, std::int64_t stride) {
        for (std::int64_t i = 0; i < params.key_width; ++i) {
            const float scaled = q[i] * log2_scale(params);
            __builtin_memcpy(words + i * stride, &scaled, sizeof scaled);
        }
    }

    /// One cached row as floats, zeros behind up to `padded`.
    template <class Element>
    static void widen_row(const char* row, std::int64_t width_in, std::int64_t padded, char* out) {
        const auto* source = reinterpret_cast<const Element*>(row);
        auto* floats = reinterpret_cast<float*>(out);
        for (std::int64_t i = 0; i < width_in; ++i) floats[i] = widened(source[i]);
        for (std::int64_t i = width_in; i < padded; ++i) floats[i] = 0;
    }

    template <class Element>
    static KeyTile widen(const AttentionParams& params, const RowBlock& block, const KeyTile& cached) {
        const std::int64_t key_bytes = block.parts.key_words * 4;
        const std::int64_t value_bytes = block.parts.value_words * 4;
        for (std::int64_t t = 0; t < cached.tokens; ++t) {
            widen_row<Element>(cached.keys + t * cached.key_stride, params.key_width, block.parts.key_words,
                               block.keys + t * key_bytes);
            widen_row<Element>(cached.values + t * cached.value_stride, params.value_width, block.parts.value_words,
                               block.values + t * value_bytes);
        }
        return {block.keys, key_bytes, block.values, value_bytes, cached.first_key, cached.tokens};
    }

    static KeyTile prepare(const AttentionParams& params, const RowBlock& block, const KeyTile& cached) {
        return params.dtype == core::DType::f32 ? widen<float>(params, block, cached)
                                                : widen<core::bf16>(params, block, cached);
    }

    static void load_values(const KeyTile& tile, std::int64_t token, std::int64_t channel, std::int64_t /*channels*/,
                            Word (&values)[2]) {
        const auto* row = reinterpret_cast<const float*>(tile.values + token * tile.value_stride) + channel;
        values[0] = Simd::load(row);
        values[1] = Simd::load(row + Simd::lanes);
    }
};

}  // namespace mha2mla::kernels
