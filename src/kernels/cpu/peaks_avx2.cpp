#include "kernels/cpu/implementations.h"
#include "kernels/cpu/peak_loop.h"
#include "kernels/cpu/vector_avx2.h"

namespace mha2mla::kernels::avx2 {
namespace {

constexpr int sums = 12;  // in flight: more than the latency of an instruction times those started in a cycle

}  // namespace

double float_peak(std::int64_t iterations) {
    __m256 total[sums];
    __m256 a = Avx2::set(1), b = Avx2::set(0x1p-20f);
    for (auto& sum : total) sum = Avx2::zero();
    for (std::int64_t i = 0; i < iterations; ++i) {
        touch(a);
#pragma GCC unroll 12
        for (int s = 0; s < sums; ++s) total[s] = Avx2::fma(a, b, total[s]);
    }
    for (auto& sum : total) touch(sum);
    return static_cast<double>(iterations) * sums * Avx2::lanes * 2;
}

double byte_peak(std::int64_t iterations) {
    __m256i total[sums];
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
    const __m256i ones = _mm256_set1_epi16(1);
    for (auto& sum : total) sum = _mm256_setzero_si256();
    for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
        for (int s = 0; s < sums; ++s) {
            touch(a);
            total[s] = _mm256_add_epi32(total[s], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
    for (auto& sum : total) touch(sum);
    return static_cast<double>(iterations) * sums * 32 * 2;
}

}  // namespace mha2mla::kernels::avx2
