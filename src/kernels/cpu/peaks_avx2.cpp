#include "kernels/cpu/implementations.h"
#include "kernels/cpu/peak_loop.h"
#include "kernels/cpu/vector_avx2.h"

namespace mha2mla::kernels::avx2 {

double float_peak(std::int64_t iterations) {
    const __m256 b = Avx2::set(0x1p-20f);
    const auto add = [&](__m256 sum, __m256 a) { return Avx2::fma(a, b, sum); };
    return count_additions<12>(iterations, Avx2::zero(), Avx2::set(1), add) * Avx2::lanes * 2;
}

double byte_peak(std::int64_t iterations) {
    const __m256i b = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
    const auto add = [&](__m256i sum, __m256i a) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    };
    return count_additions<12>(iterations, _mm256_setzero_si256(), _mm256_set1_epi8(3), add) * 32 * 2;
}

}  // namespace mha2mla::kernels::avx2
