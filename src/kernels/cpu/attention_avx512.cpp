#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/row_quads_avx512.h"
#include "kernels/cpu/vector_avx512.h"

namespace mha2mla::kernels::avx512 {

namespace {

/// Codes become floats, for which the kernel of AVX2 serves.
bool has_sealed_blocks(const AttentionParams& params) {
    if (params.end_key <= params.first_key) return false;
    const std::int64_t last = (params.end_key - 1) / params.block_tokens;
    for (std::int64_t block = params.first_key / params.block_tokens; block <= last; ++block) {
        if (params.blocks[block].sealed) return true;
    }
    return false;
}

}  // namespace

void attention(const AttentionParams& params) {
    if (params.dtype == core::DType::f32 || has_sealed_blocks(params)) {
        avx2::attention(params);
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
