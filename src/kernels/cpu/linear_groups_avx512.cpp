#include "kernels/cpu/implementations.h"
#include "kernels/cpu/linear_groups_avx2.h"
#include "kernels/cpu/vector_avx512.h"

// int8 and int4 weights times x rounded to integers, with products of quads of bytes in one instruction (VNNI). Its
// first factor is unsigned.

namespace mha2mla::kernels::avx512 {
namespace {

__m512i broadcast_quad(const std::int8_t* codes) { return _mm512_set1_epi32(load_quad(codes)); }

// x is unsigned, 128 too much: what that adds is the same for all rows.
struct Int8Weights {
    using Block = Int8Block;
    static constexpr char flipped_bits = -128;

    template <int Rows>
    __attribute__((always_inline)) static void multiply(const Block& block, const InputGroup* x, std::int64_t x_stride,
                                                        __m512i (&sums)[Rows]) {
        const __m512i too_much = _mm512_set1_epi8(flipped_bits);
        __m512i excess = _mm512_setzero_si512();
#pragma GCC unroll 1
        for (int q = 0; q < group_quads; ++q) {
            const __m512i w = Avx512::load_words(block.codes[q]);
            excess = _mm512_dpbusd_epi32(excess, too_much, w);
#pragma GCC unroll 12
            for (int r = 0; r < Rows; ++r) {
                sums[r] = _mm512_dpbusd_epi32(sums[r], broadcast_quad(x[r * x_stride].codes + q * quad_inputs), w);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) sums[r] = _mm512_sub_epi32(sums[r], excess);
    }

    static __m512 add_minimum(const Block& /*block*/, float /*x_sum*/, __m512 total) { return total; }
};

struct Int4Weights {
    using Block = Int4Block;
    static constexpr char flipped_bits = 0;

    template <int Rows>
    __attribute__((always_inline)) static void multiply(const Block& block, const InputGroup* x, std::int64_t x_stride,
                                                        __m512i (&sums)[Rows]) {
        const __m512i low_half = _mm512_set1_epi8(15);
#pragma GCC unroll 1
        for (int q = 0; q < group_quads / 2; ++q) {
            const __m512i both = Avx512::load_words(block.codes[q]);
            const __m512i low = _mm512_and_si512(both, low_half);
            const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half);
#pragma GCC unroll 12
            for (int r = 0; r < Rows; ++r) {
                const std::int8_t* codes = x[r * x_stride].codes + q * quad_inputs;
                sums[r] = _mm512_dpbusd_epi32(sums[r], low, broadcast_quad(codes));
                sums[r] = _mm512_dpbusd_epi32(sums[r], high, broadcast_quad(codes + group_inputs / 2));
            }
        }
    }

    static __m512 add_minimum(const Block& block, float x_sum, __m512 total) {
        return Avx512::fma(Avx512::load_f16(block.minima), Avx512::set(x_sum), total);
    }
};

template <class Weights>
struct QuadKernel {
    static constexpr int most_rows = 12;
    static constexpr char flipped_bits = Weights::flipped_bits;

    template <int Rows>
    static void multiply_tile(const LinearParams& params, const RoundedRows& x, std::int64_t row, std::int64_t tile) {
        const std::int64_t groups = groups_of(params.weight.inputs);
        const auto* block = static_cast<const typename Weights::Block*>(params.weight.data) + tile * groups;
        const InputGroup* inputs = x.groups + row * x.stride;
        __m512 totals[Rows];
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) totals[r] = Avx512::zero();
        for (std::int64_t g = 0; g < groups; ++g, ++block, ++inputs) {
            if (row == 0) fetch_weights(block);
            __m512i sums[Rows];
#pragma GCC unroll 12
            for (int r = 0; r < Rows; ++r) sums[r] = _mm512_setzero_si512();
            Weights::template multiply<Rows>(*block, inputs, x.stride, sums);
            const __m512 scales = Avx512::load_f16(block->scales);
#pragma GCC unroll 12
            for (int r = 0; r < Rows; ++r) {
                const InputGroup& group = inputs[r * x.stride];
                const __m512 scale = Avx512::mul(Avx512::set(group.scale), scales);
                totals[r] = Avx512::fma(scale, _mm512_cvtepi32_ps(sums[r]), totals[r]);
                totals[r] = Weights::add_minimum(*block, group.sum, totals[r]);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) finish_sums<Avx512>(params, row + r, tile * tile_rows, totals[r]);
    }
};

}  // namespace

void linear_groups(const LinearParams& params) {
    if (params.weight.format == WeightFormat::int8) return multiply_groups<QuadKernel<Int8Weights>>(params);
    multiply_groups<QuadKernel<Int4Weights>>(params);
}

}  // namespace mha2mla::kernels::avx512
