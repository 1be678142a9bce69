#pragma once

#include <c10/util/BFloat16.h>
#include <cstdint>

namespace mha2mla::model {

/// What the pairs of a head are multiplied by at one token: turn * factor, as complex numbers. A number for each pair.
template <typename Real>
struct PairTurns {
    const Real* cosine;
    const Real* sine;
    const Real* factor_re;
    const Real* factor_im;
    std::int64_t pairs;
};

/// Pairs of a head: of `Number`, their first and second halves.
template <typename Number>
struct PairHalves {
    Number* re;
    Number* im;
};

/// y = x * turns
void turn(const PairHalves<const double>& x, const PairTurns<double>& turns, const PairHalves<double>& y);
void turn(const PairHalves<const float>& x, const PairTurns<float>& turns, const PairHalves<float>& y);
void turn(const PairHalves<const c10::BFloat16>& x, const PairTurns<float>& turns, const PairHalves<c10::BFloat16>& y);

/// The gradient of x.
void turn_back(const PairHalves<const double>& y_gradient, const PairTurns<double>& turns,
               const PairHalves<double>& x_gradient);
void turn_back(const PairHalves<const float>& y_gradient, const PairTurns<float>& turns,
               const PairHalves<float>& x_gradient);
void turn_back(const PairHalves<const c10::BFloat16>& y_gradient, const PairTurns<float>& turns,
               const PairHalves<c10::BFloat16>& x_gradient);
/// Not rounded, for pairs whose gradients are to be added up.
void turn_back(const PairHalves<const c10::BFloat16>& y_gradient, const PairTurns<float>& turns,
               const PairHalves<float>& x_gradient);

/// Adds the gradient of the factors.
void add_factor_gradient(const PairHalves<const double>& x, const PairHalves<const double>& y_gradient,
                         const PairTurns<double>& turns, const PairHalves<double>& sum);
void add_factor_gradient(const PairHalves<const float>& x, const PairHalves<const float>& y_gradient,
                         const PairTurns<float>& turns, const PairHalves<double>& sum);
void add_factor_gradient(const PairHalves<const c10::BFloat16>& x, const PairHalves<const c10::BFloat16>& y_gradient,
                         const PairTurns<float>& turns, const PairHalves<double>& sum);

}  // namespace mha2mla::model
