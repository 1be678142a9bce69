#include <immintrin.h>

#include "kernels/cpu/implementations.h"
#include "kernels/cpu/peak_loop.h"

namespace mha2mla::kernels::avx512 {

double float_peak(std::int64_t iterations) {
    const __m512 b = _mm512_set1_ps(0x1p-20f);
    const auto add = [&](__m512 sum, __m512 a) { return _mm512_fmadd_ps(a, b, sum); };
    return count_additions<16>(iterations, _mm512_setzero_ps(), _mm512_set1_ps(1), add) * 16 * 2;
}

double bf16_peak(std::int64_t iterations) {
    const __m512i ones = _mm512_set1_epi16(0x3f80);
    const auto add = [&](__m512 sum, __m512i a) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(ones));
    };
    return count_additions<16>(iterations, _mm512_setzero_ps(), ones, add) * 32 * 2;
}

double byte_peak(std::int64_t iterations) {
    const __m512i b = _mm512_set1_epi8(5);
    const auto add = [&](__m512i sum, __m512i a) { return _mm512_dpbusd_epi32(sum, a, b); };
    return count_additions<16>(iterations, _mm512_setzero_si512(), _mm512_set1_epi8(3), add) * 64 * 2;
}

}  // namespace mha2mla::kernels::avx512
