#include "kernels/cpu/linear_groups_avx2.h"

#include "kernels/cpu/implementations.h"

// The loops over a group stay
// loops: of sums that are written out, GCC adds up the products by themselves first, and they take more registers than
// there are.

namespace mha2mla::kernels::avx2 {
namespace {

constexpr int halves = static_cast<int>(tile_rows) / Avx2::lanes;  // vectors of 8 outputs in a tile
__m256i load_codes(const void* codes) { return _mm256_load_si256(static_cast<const __m256i*>(codes)); }

// The codes of four inputs of a row in every lane.
__m256i broadcast_quad(const std::int8_t* codes) { return _mm256_set1_epi32(load_quad(codes)); }

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

template <class Weights>
struct PairKernel {
    static constexpr int most_rows = 4;
    static constexpr char flipped_bits = 0;

    template <int Rows>
    static void multiply_tile(const LinearParams& params, const RoundedRows& x, std::int64_t row, std::int64_t tile) {
        const std::int64_t groups = groups_of(params.weight.inputs);
        const auto* block = static_cast<const typename Weights::Block*>(params.weight.data) + tile * groups;
        const InputGroup* inputs = x.groups + row * x.stride;
        __m256 totals[Rows][halves];
        for (auto& total : totals) total[0] = total[1] = Avx2::zero();
        for (std::int64_t g = 0; g < groups; ++g, ++block, ++inputs) {
            if (row == 0) fetch_weights(block);
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
};

}  // namespace

void linear_groups(const LinearParams& params) {
    if (params.weight.format == WeightFormat::int8) return multiply_groups<PairKernel<Int8Weights>>(params);
    multiply_groups<PairKernel<Int4Weights>>(params);
}

}  // namespace mha2mla::kernels::avx2
