#include "model/turn_pairs_loops.h"

#include "model/vector_loops.h"

namespace mha2mla::model {
namespace {

using c10::BFloat16;

template <typename Number, typename Real, typename Result>
MHA2MLA_INLINE void turn_head(const PairHalves<const Number>& x, const PairTurns<Real>& turns,
                              const PairHalves<Result>& y) {
#pragma omp simd
    for (std::int64_t i = 0; i < turns.pairs; ++i) {
        const Real re = turns.cosine[i] * turns.factor_re[i] - turns.sine[i] * turns.factor_im[i];
        const Real im = turns.sign * (turns.cosine[i] * turns.factor_im[i] + turns.sine[i] * turns.factor_re[i]);
        const auto x_re = static_cast<Real>(x.re[i]), x_im = static_cast<Real>(x.im[i]);
        store(x_re * re - x_im * im, y.re[i]);
        store(x_re * im + x_im * re, y.im[i]);
    }
}

template <typename Number, typename Real>
MHA2MLA_INLINE void add_head(const PairHalves<const Number>& x, const PairHalves<const Number>& y_gradient,
                             const PairTurns<Real>& turns, const PairHalves<double>& sum) {
#pragma omp simd
    for (std::int64_t i = 0; i < turns.pairs; ++i) {
        const auto y_re = static_cast<Real>(y_gradient.re[i]), y_im = static_cast<Real>(y_gradient.im[i]);
        const Real re = y_re * turns.cosine[i] + y_im * turns.sine[i];
        const Real im = y_im * turns.cosine[i] - y_re * turns.sine[i];
        const auto x_re = static_cast<Real>(x.re[i]), x_im = static_cast<Real>(x.im[i]);
        sum.re[i] += static_cast<double>(re * x_re + im * x_im);
        sum.im[i] += static_cast<double>(im * x_re - re * x_im);
    }
}

}  // namespace

void turn(const PairHalves<const double>& x, const PairTurns<double>& turns, const PairHalves<double>& y) {
    turn_head(x, turns, y);
}
MHA2MLA_VECTOR_LOOPS void turn(const PairHalves<const float>& x, const PairTurns<float>& turns,
                               const PairHalves<float>& y) {
    turn_head(x, turns, y);
}
MHA2MLA_VECTOR_LOOPS void turn(const PairHalves<const BFloat16>& x, const PairTurns<float>& turns,
                               const PairHalves<BFloat16>& y) {
    turn_head(x, turns, y);
}
MHA2MLA_VECTOR_LOOPS void turn(const PairHalves<const BFloat16>& x, const PairTurns<float>& turns,
                               const PairHalves<float>& y) {
    turn_head(x, turns, y);
}

void add_factor_gradient(const PairHalves<const double>& x, const PairHalves<const double>& y_gradient,
                         const PairTurns<double>& turns, const PairHalves<double>& sum) {
    add_head(x, y_gradient, turns, sum);
}
MHA2MLA_VECTOR_LOOPS void add_factor_gradient(const PairHalves<const float>& x,
                                              const PairHalves<const float>& y_gradient, const PairTurns<float>& turns,
                                              const PairHalves<double>& sum) {
    add_head(x, y_gradient, turns, sum);
}
MHA2MLA_VECTOR_LOOPS void add_factor_gradient(const PairHalves<const BFloat16>& x,
                                              const PairHalves<const BFloat16>& y_gradient,
                                              const PairTurns<float>& turns, const PairHalves<double>& sum) {
    add_head(x, y_gradient, turns, sum);
}

}  // namespace mha2mla::model
