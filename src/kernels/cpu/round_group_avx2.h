#pragma once

#include "kernels/cpu/vector_avx2.h"
#include "kernels/weight_blocks.h"

/// x rounded to integers for products with int8 and int4 weights. Included by files compiled for AVX2 and beyond, and
/// of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

// The largest magnitude of 32 numbers.
float largest_of(const __m256 (&x)[4]) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const __m256 low = Avx2::max(_mm256_and_ps(x[0], magnitude), _mm256_and_ps(x[1], magnitude));
    const __m256 high = Avx2::max(_mm256_and_ps(x[2], magnitude), _mm256_and_ps(x[3], magnitude));
    const __m256 both = Avx2::max(low, high);
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/// 32 values of x, or the `count` that there are, as codes and a scale. flipped_bits: 0, or -128 for unsigned codes,
/// 128 more each.
template <char flipped_bits>
void round_group(const float* x, std::int64_t count, InputGroup& group) {
    __m256 values[4];
    for (int i = 0; i < 4; ++i) {
        const std::int64_t left = count - i * Avx2::lanes;
        values[i] = left >= Avx2::lanes ? Avx2::load(x + i * Avx2::lanes)
                    : left > 0          ? Avx2::load_first(x + i * Avx2::lanes, left)
                                        : Avx2::zero();
    }
    const float largest = largest_of(values);
    const __m256 steps = Avx2::set(largest > smallest_rounded ? 127 / largest : 0);
    __m256i codes[4];
    for (int i = 0; i < 4; ++i) codes[i] = _mm256_cvtps_epi32(Avx2::mul(values[i], steps));
    // Packing works on 128-bit halves: afterwards quads of codes lie in the order 0 2 4 6 1 3 5 7.
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]), _mm256_packs_epi32(codes[2], codes[3]));
    const __m256i in_order = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(group.codes),
                        _mm256_xor_si256(in_order, _mm256_set1_epi8(flipped_bits)));
    const __m256i sums = _mm256_add_epi32(_mm256_add_epi32(codes[0], codes[1]), _mm256_add_epi32(codes[2], codes[3]));
    group.scale = largest / 127;
    group.sum = group.scale * Avx2::sum(_mm256_cvtepi32_ps(sums));
}

}  // namespace
}  // namespace mha2mla::kernels
