#include <utility>

#include "kernels/cpu/implementations.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vector_avx2.h"
#include "kernels/weight_blocks.h"

// int8 and int4 weights times x rounded to integers. A micro-kernel holds the integer sums of a few rows times the 16
// outputs of a tile for one group of inputs; the group's scales then turn them into floats. The loops over a group stay
// loops: of sums that are written out, GCC adds up the products by themselves first, and they take more registers than
// there are.

namespace mha2mla::kernels::avx2 {
namespace {

constexpr int halves = static_cast<int>(tile_rows) / Avx2::lanes;  // vectors of 8 outputs in a tile
constexpr int most_rows = 4;

__m256i load_codes(const void* codes) { return _mm256_load_si256(static_cast<const __m256i*>(codes)); }

// The codes of four inputs of a row in every lane.
__m256i broadcast_quad(const std::int8_t* codes) {
    int quad = 0;
    __builtin_memcpy(&quad, codes, sizeof quad);
    return _mm256_set1_epi32(quad);
}

// Sums of neighbouring pairs of 16-bit numbers.
__m256i pair_sums(__m256i x) { return _mm256_madd_epi16(x, _mm256_set1_epi16(1)); }

__m256 load_halves(const core::f16* p) { return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p))); }

template <int Rows>
using IntegerSums = __m256i[Rows][halves];

// A product of bytes takes one unsigned factor: |w| and x with the sign of w. Two products stay below 2^15.
struct Int8Weights {
    using Block = Int8Block;

    template <int Rows>
    __attribute__((always_inline)) static void multiply(const Block& block, const InputGroup* x, std::int64_t x_stride,
                                                        IntegerSums<Rows>& sums) {
#pragma GCC unroll 1
        for (int q = 0; q < group_quads; ++q) {
            __m256i w[halves], magnitude[halves];
#pragma GCC unroll 2
            for (int v = 0; v < halves; ++v) {
                w[v] = load_codes(block.codes[q][v * Avx2::lanes]);
                magnitude[v] = _mm256_abs_epi8(w[v]);
            }
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) {
                const __m256i inputs = broadcast_quad(x[r * x_stride].codes + q * quad_inputs);
#pragma GCC unroll 2
                for (int v = 0; v < halves; ++v) {
                    const __m256i products = _mm256_maddubs_epi16(magnitude[v], _mm256_sign_epi8(inputs, w[v]));
                    sums[r][v] = _mm256_add_epi32(sums[r][v], pair_sums(products));
                }
            }
        }
    }

    static __m256i finish(__m256i sums) { return sums; }
    static __m256 add_minimum(const Block& /*block*/, int /*half*/, float /*x_sum*/, __m256 total) { return total; }
};

// Codes are unsigned and small: the pairs of all eight quads of a group add up to less than 2^15.
struct Int4Weights {
    using Block = Int4Block;

    template <int Rows>
    __attribute__((always_inline)) static void multiply(const Block& block, const InputGroup* x, std::int64_t x_stride,
                                                        IntegerSums<Rows>& sums) {
        const __m256i low_half = _mm256_set1_epi8(15);
#pragma GCC unroll 1
        for (int q = 0; q < group_quads / 2; ++q) {
            __m256i low[halves], high[halves];
#pragma GCC unroll 2
            for (int v = 0; v < halves; ++v) {
                const __m256i both = load_codes(block.codes[q][v * Avx2::lanes]);
                low[v] = _mm256_and_si256(both, low_half);
                high[v] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
            }
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) {
                const std::int8_t* codes = x[r * x_stride].codes + q * quad_inputs;
                const __m256i first = broadcast_quad(codes);
                const __m256i second = broadcast_quad(codes + group_inputs / 2);
#pragma GCC unroll 2
                for (int v = 0; v < halves; ++v) {
                    sums[r][v] = _mm256_add_epi16(sums[r][v], _mm256_maddubs_epi16(low[v], first));
                    sums[r][v] = _mm256_add_epi16(sums[r][v], _mm256_maddubs_epi16(high[v], second));
                }
            }
        }
    }

    static __m256i finish(__m256i sums) { return pair_sums(sums); }
    static __m256 add_minimum(const Block& block, int half, float x_sum, __m256 total) {
        return Avx2::fma(load_halves(block.minima + half * Avx2::lanes), Avx2::set(x_sum), total);
    }
};

/// x in groups: [rows, stride] of which groups_of(inputs) are used.
struct RoundedRows {
    InputGroup* groups;
    std::int64_t stride;
};

template <class Weights, int Rows>
void multiply_tile(const LinearParams& params, const RoundedRows& x, std::int64_t row, std::int64_t tile) {
    const std::int64_t groups = groups_of(params.weight.inputs);
    const auto* block = static_cast<const typename Weights::Block*>(params.weight.data) + tile * groups;
    const InputGroup* inputs = x.groups + row * x.stride;
    __m256 totals[Rows][halves];
    for (auto& total : totals) total[0] = total[1] = Avx2::zero();
    for (std::int64_t g = 0; g < groups; ++g, ++block, ++inputs) {
        IntegerSums<Rows> sums;
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
        Weights::template multiply<Rows>(*block, inputs, x.stride, sums);
#pragma GCC unroll 2
        for (int v = 0; v < halves; ++v) {
            const __m256 scales = load_halves(block->scales + v * Avx2::lanes);
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) {
                const InputGroup& group = inputs[r * x.stride];
                const __m256 scale = Avx2::mul(Avx2::set(group.scale), scales);
                const __m256 product = _mm256_cvtepi32_ps(Weights::finish(sums[r][v]));
                totals[r][v] = Weights::add_minimum(*block, v, group.sum, Avx2::fma(scale, product, totals[r][v]));
            }
        }
    }
    for (int r = 0; r < Rows; ++r) {
        for (int v = 0; v < halves; ++v) {
            finish_sums<Avx2>(params, row + r, tile * tile_rows + v * Avx2::lanes, totals[r][v]);
        }
    }
}

template <class Weights, int... RowsMinusOne>
void multiply_rows(const LinearParams& params, const RoundedRows& x, const LinearBlock& block,
                   std::integer_sequence<int, RowsMinusOne...>) {
    using Kernel = void (*)(const LinearParams&, const RoundedRows&, std::int64_t, std::int64_t);
    constexpr Kernel by_rows[] = {multiply_tile<Weights, RowsMinusOne + 1>...};
    for (std::int64_t tile = block.first_tile; tile < block.first_tile + block.tiles; ++tile) {
        const std::int64_t end = block.first_row + block.rows;
        for (std::int64_t row = block.first_row, rows = 0; row < end; row += rows) {
            rows = rows_of_next(end - row, most_rows);
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
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(group.codes), in_order);
    const __m256i sums = _mm256_add_epi32(_mm256_add_epi32(codes[0], codes[1]), _mm256_add_epi32(codes[2], codes[3]));
    group.scale = largest / 127;
    group.sum = group.scale * Avx2::sum(_mm256_cvtepi32_ps(sums));
}

RoundedRows round_rows(const LinearParams& params) {
    const std::int64_t inputs = params.weight.inputs;
    const std::int64_t groups = groups_of(inputs);
    const RoundedRows rounded{static_cast<InputGroup*>(params.scratch), groups};
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.x_stride;
        InputGroup* group = rounded.groups + row * groups;
        for (std::int64_t i = 0; i < inputs; i += group_inputs, ++group) round_group(x + i, inputs - i, *group);
    }
    return rounded;
}

// Rows go in blocks that stay in the second-level cache; the weights of a tile stay in the first while they pass.
template <class Weights>
void multiply_all(const LinearParams& params) {
    constexpr std::int64_t block_bytes = 256 * 1024;
    const RoundedRows x = round_rows(params);
    const std::int64_t row_bytes = x.stride * static_cast<std::int64_t>(sizeof(InputGroup));
    const std::int64_t fitting = block_bytes / row_bytes / most_rows * most_rows;
    const std::int64_t block_rows = fitting > 0 ? fitting : most_rows;
    for (std::int64_t row = 0; row < params.rows; row += block_rows) {
        const std::int64_t rows = row + block_rows < params.rows ? block_rows : params.rows - row;
        multiply_rows<Weights>(params, x, {row, rows, params.first_tile, params.tiles},
                               std::make_integer_sequence<int, most_rows>());
    }
}

}  // namespace

void linear_groups(const LinearParams& params) {
    if (params.weight.format == WeightFormat::int8) return multiply_all<Int8Weights>(params);
    multiply_all<Int4Weights>(params);
}

}  // namespace mha2mla::kernels::avx2
