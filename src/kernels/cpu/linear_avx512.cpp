#include "kernels/cpu/implementations.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vector_avx512.h"

namespace mha2mla::kernels::avx512 {
namespace {

// Up to here the weights' way from memory takes longer than the products: floats cost nothing.
constexpr std::int64_t most_rows_in_floats = 5;

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

// x [rows, inputs] as bf16 rows of `row_bytes`; what lies beyond the inputs is zero up to the next 64 bytes.
void round_rows(const LinearParams& params, char* rounded, std::int64_t row_bytes) {
    const std::int64_t inputs = params.weight.inputs;
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.x_stride;
        for (std::int64_t i = 0; i < inputs; i += 32) {
            const std::int64_t count = inputs - i;
            const __m512 low = Avx512::load_first(x + i, count);
            const __m512 high = count > 16 ? Avx512::load_first(x + i + 16, count - 16) : Avx512::zero();
            _mm512_store_si512(rounded + row * row_bytes + i * 2, Avx512::to_bf16(low, high));
        }
    }
}

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
