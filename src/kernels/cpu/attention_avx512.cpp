#include "kernels/cpu/attention_floats.h"
#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/row_quads_avx512.h"
#include "kernels/cpu/vector_avx512.h"

namespace mha2mla::kernels::avx512 {

void attention(const AttentionParams& params) {
    if (params.dtype == core::DType::f32) {
        attend_in_lanes<Avx512, FloatWords<Avx512>>(params);
    } else if (params.rows <= 4) {
        attend_rows<Avx512, Bf16Words, RowQuads<1>>(params, 0, params.rows);
    } else if (params.rows <= 8) {
        attend_rows<Avx512, Bf16Words, RowQuads<2>>(params, 0, params.rows);
    } else if (params.rows <= 12) {
        attend_rows<Avx512, Bf16Words, RowQuads<3>>(params, 0, params.rows);
    } else {
        attend_in_lanes<Avx512, Bf16Words>(params);
    }
}

}  // namespace mha2mla::kernels::avx512
