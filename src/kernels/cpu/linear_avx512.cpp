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

}  // namespace

void linear(const LinearParams& params) {
    if (is_grouped(params.weight.format)) return linear_groups(params);
    if (params.weight.format == WeightFormat::f32 || params.rows <= most_rows_in_floats) {
        linear_in_floats<Avx512>(params);
        return;
    }
    const std::int64_t row_bytes = rounded_row_bytes(params.weight.inputs);
    auto* rounded = static_cast<char*>(params.scratch);
    round_rows(params, rounded, row_bytes);
    multiply_all<Avx512, DotWeights>(params, {rounded, row_bytes, (params.weight.inputs + 1) / 2, false});
}

}  // namespace mha2mla::kernels::avx512
