#include "kernels/cpu/attention_floats.h"
#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/four_rows_avx512.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/vector_avx512.h"

namespace mha2mla::kernels::avx512 {

void attention(const AttentionParams& params) {
    if (params.dtype == core::DType::f32) {
        attend_in_lanes<Avx512, FloatWords<Avx512>>(params);
    } else if (params.rows <= FourRows::most_rows) {
        attend_rows<Avx512, Bf16Words, FourRows>(params, 0, params.rows);
    } else {
        attend_in_lanes<Avx512, Bf16Words>(params);
    }
}

}  // namespace mha2mla::kernels::avx512
