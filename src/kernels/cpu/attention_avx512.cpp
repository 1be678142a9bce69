#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/code_attention_avx512.h"
#include "kernels/cpu/few_rows_codes_avx512.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/row_quads_avx512.h"

namespace mha2mla::kernels {
namespace {

template <int RowVectors>
using NumbersInVectors = RowsInLanes<Avx512, Bf16Words, RowVectors>;

template <int RowVectors>
using CodesAndNumbersInVectors = RowsOverCodes<NumbersInVectors<RowVectors>, CodesInVectors<RowVectors>>;

using CodesOfFewRows = RowsOverCodes<NumbersInVectors<1>, TokensInLanes>;

// With more, lanes of rows are full enough (docs/results/2026-11-29-few-rows.md).
constexpr std::int64_t most_rows_with_tokens_in_lanes = 12;

}  // namespace

void avx512::attention(const AttentionParams& params) {
    if (!fits_bf16(params)) {
        avx2::attention(params);
    } else if (has_sealed_blocks(params) && multiplies_codes(params)) {
        params.rows <= most_rows_with_tokens_in_lanes ? attend_rows<CodesOfFewRows>(params, 0, params.rows)
                                                      : attend_in_blocks<CodesAndNumbersInVectors>(params);
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
