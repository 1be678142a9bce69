#include "kernels/cpu/coded_bf16.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/rounded_rows_avx512.h"
#include "kernels/cpu/vector_avx512.h"

namespace mha2mla::kernels::avx512 {
namespace {

// Packed bf16 weights times x rounded to bf16, in pairs.
struct DotWeights {
    static constexpr std::int64_t x_step_bytes = 4;
    static constexpr int parts = 1;
    template <int>
    static __m512i weights(const char* p) {
        return Avx512::load_words(p);
    }
    template <int>
    static __m512i factor(const char* x) {
        return _mm512_set1_epi32(*reinterpret_cast<const int*>(x));
    }
    static __m512 multiply(__m512 sum, __m512i x, __m512i w) { return Avx512::dot_bf16(sum, w, x); }
};

// Words of coded weights likewise.
struct DotPairs {
    static constexpr std::int64_t pair_bytes = DotWeights::x_step_bytes;
    static __m512 multiply(__m512 sum, __m512i words, const char* x) {
        return DotWeights::multiply(sum, DotWeights::factor<0>(x), words);
    }
};

}  // namespace

void linear(const LinearParams& params) {
    if (is_grouped(params.weight.format)) return linear_groups(params);
    if (params.weight.format == WeightFormat::f32) return linear_in_floats<Avx512>(params);
    if (params.rows <= most_rows_in_floats) {
        if (params.weight.format == WeightFormat::bf16) return linear_in_floats<Avx512>(params);
        return linear_coded_in_floats<Avx512>(params);
    }
    const std::int64_t row_bytes = rounded_row_bytes(params.weight.inputs);
    auto* rounded = static_cast<char*>(params.scratch);
    round_rows(params, rounded, row_bytes);
    constexpr int most_rows = max_rows<Avx512>();
    if (params.weight.format == WeightFormat::coded_bf16 && params.rows <= most_rows) {
        constexpr std::make_integer_sequence<int, most_rows> rows;
        return multiply_coded<Avx512, DotPairs>(params, {rounded, row_bytes}, rows);
    }
    with_bf16_weights<Avx512>(params, rounded + params.rows * row_bytes, [&](const LinearParams& part) {
        multiply_all<Avx512, DotWeights>(part, {rounded, row_bytes, (part.weight.inputs + 1) / 2, false});
    });
}

}  // namespace mha2mla::kernels::avx512
