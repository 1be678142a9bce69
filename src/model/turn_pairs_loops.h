#pragma once

#include <c10/util/BFloat16.h>
#include <cstdint>

namespace mha2mla::model {

/// What the pairs of a head are multiplied by at one token: turn * factor, as complex numbers, or the conjugate of
/// that. A number for each pair.
template <typename Real>
struct PairTurns {
    const Real* cosine;
    const Real* sine;
    const Real* factor_re;
    const Real* factor_im;
    std::int64_t pairs;
    Real sign = 1;  ///< of the imaginary part of the product

    PairTurns conjugate() const { return {cosine, sine, factor_re, factor_im, pairs, -sign}; }
};

/// Pairs of a head: of `Number`, their first and second halves.
template <typename Number>
struct PairHalves {
    Number* re;
    Number* im;
};

/// y = x * turns. The gradient of x is that of y times the conjugate; in fp32 it may be added up before it is rounded.
void turn(const PairHalves<const double>& x, const PairTurns<double>& turns, const PairHalves<double>& y);
void turn(const PairHalves<const float>& x, const PairTurns<float>& turns, const PairHalves<float>& y);
void turn(const PairHalves<const c10::BFloat16>& x, const PairTurns<float>& turns, const PairHalves<c10::BFloat16>& y);
void turn(const PairHalves<const c10::BFloat16>& x, const PairTurns<float>& turns, const PairHalves<float>& y);

/// Adds the gradient of the factors, from turns that are not conjugate.
void add_factor_gradient(const PairHalves<const double>& x, const PairHalves<const double>& y_gradient,
                         const PairTurns<double>& turns, const PairHalves<double>& sum);
void add_factor_gradient(const PairHalves<const float>& x, const PairHalves<const float>& y_gradient,
                         const PairTurns<float>& turns, const PairHalves<double>& sum);
void add_factor_gradient(const PairHalves<const c10::BFloat16>& x, const PairHalves<const c10::BFloat16>& y_gradient,
                         const PairTurns<float>& turns, const PairHalves<double>& sum);

}  // namespace mha2mla::model
