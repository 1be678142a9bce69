#pragma once

/// For peaks_*.cpp alone, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// Tells the compiler that a vector register may have changed, so that it computes every iteration.
template <class Vector>
__attribute__((always_inline)) inline void touch(Vector& x) {
    __asm__ volatile("" : "+v"(x));
}

}  // namespace
}  // namespace mha2mla::kernels
