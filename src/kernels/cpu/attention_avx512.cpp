#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/code_attention_avx512.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/row_quads_avx512.h"

namespace mha2mla::kernels {
namespace {

template <int RowVectors>
using NumbersInVectors = RowsInLanes<Avx512, Bf16Words, RowVectors>;

template <int RowVectors>
using CodesAndNumbersInVectors = RowsOverCodes<NumbersInVectors<RowVectors>, CodesInVectors<RowVectors>>;

}  // namespace

void avx512::attention(const AttentionParams& params) {
    if (!fits_bf16(params)) {
        avx2::attention(params);
    } else if (has_sealed_blocks(params) && multiplies_codes(params)) {
        attend_in_blocks<CodesAndNumbersInVectors>(params);
    } else if (params.rows <= 4) {
        attend_rows<RowQuads<1>>(params, 0, params.rows);
    } else if (params.rows <= 8) {
        attend_rows<RowQuads<2>>(params, 0, params.rows);
    } else if (params.rows <= 12) {
        attend_rows<RowQuads<3>>(params, 0, params.rows);
    } else {
        attend_in_blocks<NumbersInVectors>(params);
    }
}

}  // namespace mha2mla::kernels
