#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/bf16_words_avx512.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/mixed_attention_avx2.h"
#include "kernels/cpu/row_quads_avx512.h"
#include "kernels/cpu/vector_avx512.h"

namespace mha2mla::kernels {
namespace {

/// Products of bytes in quads, summed in 32 bits by one instruction (VNNI).
struct QuadProducts {
    static constexpr int vectors = 4;
    static constexpr int rows_at_once = 9;

    template <Unsigned unsigned_factor, int Rows>
    static void multiply(const Quads& quads, __m256i (&sums)[Rows][vectors]) {
        __m512i wide[Rows][vectors / 2];
#pragma GCC unroll 9
        for (int r = 0; r < Rows; ++r) wide[r][0] = wide[r][1] = _mm512_setzero_si512();
        const char* page = quads.page;
        const char* rows = quads.rows;
        for (std::int64_t i = 0; i < quads.count; ++i, page += quads.page_stride, rows += per_quad) {
            const __m512i of_page[vectors / 2] = {Avx512::load_words(page), Avx512::load_words(page + 2 * code_vector)};
#pragma GCC unroll 9
            for (int r = 0; r < Rows; ++r) {
                const __m512i row = _mm512_set1_epi32(load_quad(rows + r * quads.row_stride));
                wide[r][0] = add_quads<unsigned_factor>(wide[r][0], of_page[0], row);
                wide[r][1] = add_quads<unsigned_factor>(wide[r][1], of_page[1], row);
            }
        }
#pragma GCC unroll 9
        for (int r = 0; r < Rows; ++r) {
            for (int v = 0; v < vectors / 2; ++v) {
                sums[r][2 * v] = _mm512_castsi512_si256(wide[r][v]);
                sums[r][2 * v + 1] = _mm512_extracti64x4_epi64(wide[r][v], 1);
            }
        }
    }

private:
    template <Unsigned unsigned_factor>
    static __m512i add_quads(__m512i sum, __m512i page, __m512i row) {
        return unsigned_factor == Unsigned::page ? _mm512_dpbusd_epi32(sum, page, row)
                                                 : _mm512_dpbusd_epi32(sum, row, page);
    }
};

}  // namespace

void avx512::attention(const AttentionParams& params) {
    if (!fits_bf16(params) || (has_sealed_blocks(params) && multiplies_codes(params))) {
        attend_mixed<QuadProducts>(params);
    } else if (params.rows <= 4) {
        attend_rows<RowQuads<1>>(params, 0, params.rows);
    } else if (params.rows <= 8) {
        attend_rows<RowQuads<2>>(params, 0, params.rows);
    } else if (params.rows <= 12) {
        attend_rows<RowQuads<3>>(params, 0, params.rows);
    } else {
        attend_in_lanes<Avx512, Bf16Words>(params);
    }
}

}  // namespace mha2mla::kernels
