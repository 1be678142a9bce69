#pragma once

#include <utility>

#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vector_avx2.h"
#include "kernels/weight_blocks.h"

/// int8 and int4 weights times x rounded to integers, on AVX2 and beyond: the rounding and the loops. A micro-kernel
/// holds the integer sums of a few rows times the 16 outputs of a tile for one group of inputs; the group's scales then
/// turn them into floats. A `Kernel` policy has
///   most_rows      of its micro-kernels
///   flipped_bits   of every code of x: -128 makes them unsigned, 128 more each
///   multiply_tile  a micro-kernel of a constant number of rows
/// Included by *_avx2.cpp and *_avx512.cpp, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

// The codes of four inputs of a row.
int load_quad(const std::int8_t* codes) {
    int quad = 0;
    __builtin_memcpy(&quad, codes, sizeof quad);
    return quad;
}

/// x in groups: [rows, stride] of which groups_of(inputs) are used.
struct RoundedRows {
    InputGroup* groups;
    std::int64_t stride;
};

template <class Kernel, int... RowsMinusOne>
void multiply_rows(const LinearParams& params, const RoundedRows& x, const LinearBlock& block,
                   std::integer_sequence<int, RowsMinusOne...>) {
    using Tile = void (*)(const LinearParams&, const RoundedRows&, std::int64_t, std::int64_t);
    constexpr Tile by_rows[] = {Kernel::template multiply_tile<RowsMinusOne + 1>...};
    for (std::int64_t tile = block.first_tile; tile < block.first_tile + block.tiles; ++tile) {
        const std::int64_t end = block.first_row + block.rows;
        for (std::int64_t row = block.first_row, rows = 0; row < end; row += rows) {
            rows = rows_of_next(end - row, Kernel::most_rows);
            by_rows[rows - 1](params, x, row, tile);
        }
    }
}

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

template <class Kernel>
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
                        _mm256_xor_si256(in_order, _mm256_set1_epi8(Kernel::flipped_bits)));
    const __m256i sums = _mm256_add_epi32(_mm256_add_epi32(codes[0], codes[1]), _mm256_add_epi32(codes[2], codes[3]));
    group.scale = largest / 127;
    group.sum = group.scale * Avx2::sum(_mm256_cvtepi32_ps(sums));
}

template <class Kernel>
RoundedRows round_rows(const LinearParams& params) {
    const std::int64_t inputs = params.weight.inputs;
    const std::int64_t groups = groups_of(inputs);
    const RoundedRows rounded{static_cast<InputGroup*>(params.scratch), groups};
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.x_stride;
        InputGroup* group = rounded.groups + row * groups;
        for (std::int64_t i = 0; i < inputs; i += group_inputs, ++group) round_group<Kernel>(x + i, inputs - i, *group);
    }
    return rounded;
}

// Rows go in blocks that stay in the second-level cache; the weights of a tile stay in the first while they pass.
template <class Kernel>
void multiply_groups(const LinearParams& params) {
    constexpr std::int64_t block_bytes = 256 * 1024;
    constexpr std::int64_t most_rows = Kernel::most_rows;
    const RoundedRows x = round_rows<Kernel>(params);
    const std::int64_t row_bytes = x.stride * static_cast<std::int64_t>(sizeof(InputGroup));
    const std::int64_t fitting = block_bytes / row_bytes / most_rows * most_rows;
    const std::int64_t block_rows = fitting > 0 ? fitting : most_rows;
    for (std::int64_t row = 0; row < params.rows; row += block_rows) {
        const std::int64_t rows = row + block_rows < params.rows ? block_rows : params.rows - row;
        multiply_rows<Kernel>(params, x, {row, rows, params.first_tile, params.tiles},
                              std::make_integer_sequence<int, Kernel::most_rows>());
    }
}

}  // namespace
}  // namespace mha2mla::kernels
