#pragma once

#include <cstdint>

/// For peaks_*.cpp alone, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// Tells the compiler that a vector register may have changed, so that it computes every iteration.
template <class Vector>
__attribute__((always_inline)) inline void touch(Vector& x) {
    __asm__ volatile("" : "+v"(x));
}

/// Calls sum = add(sum, factor) for so many sums, which begin at `zero`, in every iteration: more than the latency of
/// an instruction times those started in a cycle. Returns the number of calls.
template <int sums, class Sum, class Factor, class Add>
double count_additions(std::int64_t iterations, Sum zero, Factor factor, const Add& add) {
    Sum total[sums];
    for (auto& sum : total) sum = zero;
    for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
        for (int s = 0; s < sums; ++s) {
            touch(factor);
            total[s] = add(total[s], factor);
        }
    }
    for (auto& sum : total) touch(sum);
    return static_cast<double>(iterations) * sums;
}

}  // namespace
}  // namespace mha2mla::kernels
