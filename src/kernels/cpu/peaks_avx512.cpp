#include <immintrin.h>

#include "kernels/cpu/implementations.h"
#include "kernels/cpu/peak_loop.h"

namespace mha2mla::kernels::avx512 {
namespace {

constexpr int sums = 16;  // in flight: more than the latency of an instruction times those started in a cycle

}  // namespace

double float_peak(std::int64_t iterations) {
    __m512 total[sums];
    __m512 a = _mm512_set1_ps(1);
    const __m512 b = _mm512_set1_ps(0x1p-20f);
    for (auto& sum : total) sum = _mm512_setzero_ps();
    for (std::int64_t i = 0; i < iterations; ++i) {
        touch(a);
#pragma GCC unroll 16
        for (int s = 0; s < sums; ++s) total[s] = _mm512_fmadd_ps(a, b, total[s]);
    }
    for (auto& sum : total) touch(sum);
    return static_cast<double>(iterations) * sums * 16 * 2;
}

double bf16_peak(std::int64_t iterations) {
    __m512 total[sums];
    __m512 one = _mm512_castsi512_ps(_mm512_set1_epi16(0x3f80));
    const auto b = reinterpret_cast<__m512bh>(one);
    for (auto& sum : total) sum = _mm512_setzero_ps();
    for (std::int64_t i = 0; i < iterations; ++i) {
        touch(one);
        const auto a = reinterpret_cast<__m512bh>(one);
#pragma GCC unroll 16
        for (int s = 0; s < sums; ++s) total[s] = _mm512_dpbf16_ps(total[s], a, b);
    }
    for (auto& sum : total) touch(sum);
    return static_cast<double>(iterations) * sums * 32 * 2;
}

// GCC copies sums from register to register around the intrinsic, which takes no unit that multiplies.
double byte_peak(std::int64_t iterations) {
    __m512i total[sums];
    __m512i a = _mm512_set1_epi8(3);
    const __m512i b = _mm512_set1_epi8(5);
    for (auto& sum : total) sum = _mm512_setzero_si512();
    for (std::int64_t i = 0; i < iterations; ++i) {
        touch(a);
#pragma GCC unroll 16
        for (int s = 0; s < sums; ++s) total[s] = _mm512_dpbusd_epi32(total[s], a, b);
    }
    for (auto& sum : total) touch(sum);
    return static_cast<double>(iterations) * sums * 64 * 2;
}

}  // namespace mha2mla::kernels::avx512
