#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/vector_avx2.h"

/// Included by files compiled for AVX2 and beyond, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// Scales and zeros of eight groups: those of channels. Not read beyond `count`.
struct ScaleVectors {
    __m256 scale;
    __m256 zero;

    static ScaleVectors of_channels(const char* scales, std::int64_t count) {
        alignas(32) std::uint32_t pairs[8] = {};
        if (count >= 8) return split(Avx2::load_words(scales));
        std::memcpy(pairs, scales, static_cast<std::size_t>(count) * sizeof pairs[0]);
        return split(Avx2::load_words(pairs));
    }
    /// Of one group, for all its elements.
    static ScaleVectors of_group(const char* scales) {
        int pair = 0;
        std::memcpy(&pair, scales, sizeof pair);
        return split(_mm256_set1_epi32(pair));
    }

private:
    static ScaleVectors split(__m256i pairs) { return {Avx2::even_bf16(pairs), Avx2::odd_bf16(pairs)}; }
};

}  // namespace
}  // namespace mha2mla::kernels
