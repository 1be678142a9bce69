#include "kernels/cpu/implementations.h"
#include "kernels/cpu/mixed_attention_avx2.h"

namespace mha2mla::kernels {
namespace {

/// Products of bytes in pairs: their 16-bit sums become 32-bit ones before they can overflow.
struct PairProducts {
    static constexpr int vectors = 2;
    static constexpr int rows_at_once = 3;

    template <Unsigned unsigned_factor, int Rows>
    static void multiply(Quads quads, __m256i (&sums)[Rows][vectors]) {
        for (auto& of_row : sums) {
            for (__m256i& sum : of_row) sum = _mm256_setzero_si256();
        }
        for (std::int64_t left = quads.count; left > 0; left -= run_quads) {
            quads.count = smaller(left, run_quads);
            add_run<unsigned_factor, Rows>(quads, sums);
            quads.page += run_quads * quads.page_stride;
            quads.rows += run_quads * per_quad;
        }
    }

private:
    /// Quads whose products a 16-bit sum can hold: of digits with query bytes, 2 * 15 * 127 each, and of values with
    /// probabilities, 2 * 8 * 255.
    static constexpr std::int64_t run_quads = 8;

    template <Unsigned unsigned_factor>
    static __m256i pairs(__m256i page, __m256i row) {
        return unsigned_factor == Unsigned::page ? _mm256_maddubs_epi16(page, row) : _mm256_maddubs_epi16(row, page);
    }

    template <Unsigned unsigned_factor, int Rows>
    static void add_run(const Quads& quads, __m256i (&sums)[Rows][vectors]) {
        __m256i run[Rows][vectors];
        for (auto& of_row : run) {
            for (__m256i& sum : of_row) sum = _mm256_setzero_si256();
        }
        const char* page = quads.page;
        const char* rows = quads.rows;
#pragma GCC unroll 1
        for (std::int64_t i = 0; i < quads.count; ++i, page += quads.page_stride, rows += per_quad) {
            const __m256i of_page[vectors] = {Avx2::load_words(page), Avx2::load_words(page + code_vector)};
#pragma GCC unroll 3
            for (int r = 0; r < Rows; ++r) {
                const __m256i row = _mm256_set1_epi32(load_quad(rows + r * quads.row_stride));
#pragma GCC unroll 2
                for (int v = 0; v < vectors; ++v) {
                    run[r][v] = _mm256_add_epi16(run[r][v], pairs<unsigned_factor>(of_page[v], row));
                }
            }
        }
        const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 3
        for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v) {
                sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(run[r][v], ones));
            }
        }
    }
};

}  // namespace

void avx2::attention(const AttentionParams& params) { attend_mixed<PairProducts>(params); }

}  // namespace mha2mla::kernels
