#pragma once

#include <bit>
#include <c10/util/BFloat16.h>
#include <cmath>
#include <cstdint>

/// For training's own loops: what the compiler needs to make vectors of them. A function with MHA2MLA_VECTOR_LOOPS is
/// built once for each instruction set, and the machine's best runs; what it calls must be MHA2MLA_INLINE. Sums are
/// marked with `#pragma omp simd reduction`, which allows the compiler to add in another order.
#define MHA2MLA_VECTOR_LOOPS [[gnu::target_clones("avx512f", "avx2", "default")]]
#define MHA2MLA_INLINE [[gnu::always_inline]] inline

namespace mha2mla::model {

MHA2MLA_INLINE double exp_of(double x) { return std::exp(x); }

/// e^x to 3e-7 of itself, as if x were within -60 and 60: what is smaller counts for nothing here, and denormal numbers
/// would cost hundreds of cycles. 2^n e^r with n the integer nearest to x / ln 2, and a Taylor polynomial for e^r.
MHA2MLA_INLINE float exp_of(float x) {
    constexpr float smallest = -60.0F, largest = 60.0F;
    constexpr float log2_e = 1.44269504F;
    constexpr float ln2_high = 0.693359375F, ln2_low = -2.12194440e-4F;
    constexpr float rounds_to_integers = 12582912.0F;  // 1.5 * 2^23: no bits behind the point are left
    const float above = x < smallest ? smallest : x;
    const float bounded = above > largest ? largest : above;
    const float n = (bounded * log2_e + rounds_to_integers) - rounds_to_integers;
    const float r = (bounded - n * ln2_high) - n * ln2_low;
    const float series =
        1 + r * (1 + r * (1.0F / 2 + r * (1.0F / 6 + r * (1.0F / 24 + r * (1.0F / 120 + r * (1.0F / 720))))));
    const auto power = std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
    return series * power;
}

MHA2MLA_INLINE void store(double value, double& to) { to = value; }
MHA2MLA_INLINE void store(float value, float& to) { to = value; }

/// To the nearest, of two the even one. Without a branch: LibTorch's conversion looks for NaN first, which a vector
/// cannot. A processor's own NaN stays one.
MHA2MLA_INLINE void store(float value, c10::BFloat16& to) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    to.x = static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace mha2mla::model
