#pragma once

#include "kernels/kernels.h"

/// Element-wise kernels over the vector operations of an instruction set (vector_avx2.h, vector_avx512.h). Instances
/// have internal linkage, since `Simd` has.
namespace mha2mla::kernels {

/// Limits of exponents: beyond them e^x and 2^x are 0 and infinity, and `scale_by_power` still works. As first operands
/// of min and max, so that NaN passes.
template <class Simd>
typename Simd::Vector clamp_exponent(typename Simd::Vector x) {
    return Simd::max(Simd::set(-170.0f), Simd::min(Simd::set(170.0f), x));
}

/// e^x to 2 units in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, and a Taylor polynomial for e^r.
template <class Simd>
typename Simd::Vector exp_of(typename Simd::Vector x) {
    using V = typename Simd::Vector;
    const V clamped = clamp_exponent<Simd>(x);
    const V n = Simd::round(Simd::mul(clamped, Simd::set(1.44269504f)));
    // ln 2 in two parts; the first has few bits, so that n times it is exact.
    V r = Simd::fma(n, Simd::set(-0.693359375f), clamped);
    r = Simd::fma(n, Simd::set(2.12194440e-4f), r);
    V p = Simd::set(1.0f / 5040);
    p = Simd::fma(p, r, Simd::set(1.0f / 720));
    p = Simd::fma(p, r, Simd::set(1.0f / 120));
    p = Simd::fma(p, r, Simd::set(1.0f / 24));
    p = Simd::fma(p, r, Simd::set(1.0f / 6));
    p = Simd::fma(p, r, Simd::set(0.5f));
    p = Simd::fma(p, r, Simd::set(1.0f));
    p = Simd::fma(p, r, Simd::set(1.0f));
    return Simd::scale_by_power(p, n);
}

/// 2^x by the Taylor polynomial of this degree (at most 6): relative error 1e-7 at degree 6, 4e-5 at degree 4.
template <class Simd, int Degree>
typename Simd::Vector exp2_of(typename Simd::Vector x) {
    using V = typename Simd::Vector;
    constexpr float coefficients[] = {
        // (ln 2)^k / k!
        1.0f, 0.693147181f, 0.240226507f, 0.0555041087f, 0.00961812911f, 0.00133335581f, 0.000154035304f};
    const V clamped = clamp_exponent<Simd>(x);
    const V n = Simd::round(clamped);
    const V r = Simd::sub(clamped, n);
    V p = Simd::set(coefficients[Degree]);
    for (int k = Degree - 1; k >= 0; --k) p = Simd::fma(p, r, Simd::set(coefficients[k]));
    return Simd::scale_by_power(p, n);
}

template <class Simd>
float sum_of_squares(const float* x, std::int64_t width) {
    using V = typename Simd::Vector;
    V sums[2] = {Simd::zero(), Simd::zero()};
    std::int64_t i = 0;
    for (; i + 2 * Simd::lanes <= width; i += 2 * Simd::lanes) {
        const V a = Simd::load(x + i);
        const V b = Simd::load(x + i + Simd::lanes);
        sums[0] = Simd::fma(a, a, sums[0]);
        sums[1] = Simd::fma(b, b, sums[1]);
    }
    for (; i < width; i += Simd::lanes) {
        const V a = Simd::load_first(x + i, width - i);
        sums[0] = Simd::fma(a, a, sums[0]);
    }
    return Simd::sum(Simd::add(sums[0], sums[1]));
}

template <class Simd>
void rms_norm_with(const RmsNormParams& params) {
    using V = typename Simd::Vector;
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.width;
        float* y = params.y + row * params.width;
        const float mean = sum_of_squares<Simd>(x, params.width) / static_cast<float>(params.width);
        const V scale = Simd::set(1.0f / __builtin_sqrtf(mean + params.eps));
        for (std::int64_t i = 0; i < params.width; i += Simd::lanes) {
            const std::int64_t count = params.width - i;
            const V normed = Simd::mul(Simd::load_first(x + i, count), scale);
            Simd::store_first(y + i, count, Simd::mul(normed, Simd::load_first(params.weight + i, count)));
        }
    }
}

template <class Simd>
void turn_with(const TurnParams& params) {
    using V = typename Simd::Vector;
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * 2 * params.pairs;
        float* y = params.y + row * 2 * params.pairs;
        for (std::int64_t i = 0; i < params.pairs; i += Simd::lanes) {
            const std::int64_t count = params.pairs - i;
            const V cos = Simd::load_first(params.cos + i, count), sin = Simd::load_first(params.sin + i, count);
            const V real = Simd::load_first(x + i, count), imaginary = Simd::load_first(x + i + params.pairs, count);
            Simd::store_first(y + i, count, Simd::fma(real, cos, Simd::mul(imaginary, sin)));
            Simd::store_first(y + i + params.pairs, count, Simd::sub(Simd::mul(imaginary, cos), Simd::mul(real, sin)));
        }
    }
}

template <class Simd>
void store_rows_with(const StoreRowsParams& params) {
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.x_stride;
        char* y = static_cast<char*>(params.y) + row * params.y_stride_bytes;
        for (std::int64_t i = 0; i < params.width; i += Simd::lanes) {
            const std::int64_t count = params.width - i;
            const typename Simd::Vector numbers = Simd::load_first(x + i, count);
            if (params.dtype == core::DType::f32) {
                Simd::store_first(reinterpret_cast<float*>(y) + i, count, numbers);
            } else {
                Simd::store_first_bf16(reinterpret_cast<core::bf16*>(y) + i, count, numbers);
            }
        }
    }
}

template <class Simd>
void swiglu_with(const SwiGluParams& params) {
    using V = typename Simd::Vector;
    for (std::int64_t i = 0; i < params.count; i += Simd::lanes) {
        const std::int64_t count = params.count - i;
        const V gate = Simd::load_first(params.gate + i, count);
        const V up = Simd::load_first(params.up + i, count);
        const V denominator = Simd::add(Simd::set(1.0f), exp_of<Simd>(Simd::sub(Simd::zero(), gate)));
        Simd::store_first(params.y + i, count, Simd::mul(Simd::div(gate, denominator), up));
    }
}

}  // namespace mha2mla::kernels
