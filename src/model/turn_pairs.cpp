#include "model/turn_pairs.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <algorithm>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

#include "model/options.h"

namespace mha2mla::model {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// cos and sin of a token's angles: [tokens, rows, p].
struct Angles {
    Tensor cosine;
    Tensor sine;
};

Angles angles_of(const Tensor& frequencies, std::int64_t tokens) {
    const auto positions = torch::arange(tokens, frequencies.options()).view({-1, 1, 1});
    const auto angles = positions * frequencies;
    return {angles.cos(), angles.sin()};
}

/// What one head reads and writes, and the pairs' products with its factor. Real is the type of sums.
template <typename Real>
class Head {
public:
    /// `pairs`, `angles` and `factor` as in the header, contiguous, of the type Real; undefined ones are left out.
    Head(std::int64_t head, std::int64_t heads, const Tensor& pairs, const Angles& angles, const Tensor& factor)
        : pairs_(row_of<std::int64_t>(pairs, head, heads)),
          cosine_(row_of<Real>(angles.cosine, head, heads)),
          sine_(row_of<Real>(angles.sine, head, heads)),
          angle_stride_(angles.cosine.defined() ? angles.cosine.stride(0) : 0),
          factor_(factor.defined() ? factor.data_ptr<Real>() + head * factor.stride(0) : nullptr) {}

    std::int64_t pair(std::int64_t i) const { return pairs_ == nullptr ? i : pairs_[i]; }

    struct Complex {
        Real re, im;
        Complex operator*(Complex other) const {
            return {re * other.re - im * other.im, re * other.im + im * other.re};
        }
        Complex conjugate() const { return {re, -im}; }
    };
    Complex turn(std::int64_t token, std::int64_t i) const {
        if (cosine_ == nullptr) return {1, 0};
        const std::int64_t at = token * angle_stride_ + i;
        return {cosine_[at], sine_[at]};
    }
    Complex factor(std::int64_t i) const {
        if (factor_ == nullptr) return {1, 0};
        return {factor_[2 * i], factor_[2 * i + 1]};
    }

private:
    template <typename Item>
    static const Item* row_of(const Tensor& rows, std::int64_t head, std::int64_t heads) {
        if (!rows.defined()) return nullptr;
        return rows.data_ptr<Item>() + head * rows.size(-2) / heads * rows.size(-1);
    }

    const std::int64_t* pairs_;
    const Real* cosine_;
    const Real* sine_;
    std::int64_t angle_stride_;
    const Real* factor_;
};

struct Sizes {
    std::int64_t rows, tokens, heads, width, pairs;  // rows: tokens of the whole batch

    static Sizes of(const Tensor& x, const PairChoice& choice) {
        const auto pairs = choice.pairs.defined() ? choice.pairs.size(1) : x.size(3) / 2;
        return {x.size(0) * x.size(1), x.size(1), x.size(2), x.size(3), pairs};
    }
};

/// Calls task(head) for all, shared out to LibTorch's threads.
template <typename Task>
void for_each_head(std::int64_t heads, const Task& task) {
    at::parallel_for(0, heads, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t head = begin; head < end; ++head) task(head);
    });
}

template <typename Number, typename Real>
void turn_head(const Head<Real>& head, const Sizes& sizes, const Number* x, Number* y) {
    const std::int64_t half = sizes.width / 2;
    for (std::int64_t row = 0; row < sizes.rows; ++row) {
        const Number* const from = x + row * sizes.heads * sizes.width;
        Number* const to = y + row * sizes.heads * 2 * sizes.pairs;
        for (std::int64_t i = 0; i < sizes.pairs; ++i) {
            const std::int64_t pair = head.pair(i);
            const typename Head<Real>::Complex number{from[pair], from[pair + half]};
            const auto product = number * (head.turn(row % sizes.tokens, i) * head.factor(i));
            to[i] = static_cast<Number>(product.re);
            to[i + sizes.pairs] = static_cast<Number>(product.im);
        }
    }
}

/// What the sum of y * y_gradient changes by.
template <typename Number, typename Real>
struct Gradients {
    Number* x;
    Real* factor;  // null: not asked for; else added to
};

template <typename Number, typename Real>
void turn_head_back(const Head<Real>& head, const Sizes& sizes, const Number* x, const Number* y_gradient,
                    const Gradients<Number, Real>& gradients) {
    const std::int64_t half = sizes.width / 2;
    std::vector<Real> sums(static_cast<std::size_t>(sizes.width));
    for (std::int64_t row = 0; row < sizes.rows; ++row) {
        const Number* const from = x + row * sizes.heads * sizes.width;
        const Number* const gradient = y_gradient + row * sizes.heads * 2 * sizes.pairs;
        std::fill(sums.begin(), sums.end(), Real{0});
        for (std::int64_t i = 0; i < sizes.pairs; ++i) {
            const std::int64_t pair = head.pair(i);
            const typename Head<Real>::Complex given{gradient[i], gradient[i + sizes.pairs]};
            const auto turned = given * head.turn(row % sizes.tokens, i).conjugate();
            const auto to_x = turned * head.factor(i).conjugate();
            sums[static_cast<std::size_t>(pair)] += to_x.re;
            sums[static_cast<std::size_t>(pair + half)] += to_x.im;
            if (gradients.factor == nullptr) continue;
            const typename Head<Real>::Complex number{from[pair], from[pair + half]};
            const auto to_factor = turned * number.conjugate();
            gradients.factor[2 * i] += to_factor.re;
            gradients.factor[2 * i + 1] += to_factor.im;
        }
        Number* const to = gradients.x + row * sizes.heads * sizes.width;
        for (std::int64_t i = 0; i < sizes.width; ++i) to[i] = static_cast<Number>(sums[static_cast<std::size_t>(i)]);
    }
}

struct TurnPairs : torch::autograd::Function<TurnPairs> {
    static Tensor forward(AutogradContext* context, const Tensor& x_BTHd, const std::optional<Tensor>& factor_Hp2,
                          const PairChoice& choice) {
        const auto x = x_BTHd.contiguous();
        const auto sizes = Sizes::of(x, choice);
        const auto real = precise_type(x.scalar_type());
        Angles angles;
        if (choice.frequencies.defined()) angles = angles_of(choice.frequencies.to(real), sizes.tokens);
        const auto factor = factor_Hp2 ? factor_Hp2->detach().to(real).contiguous() : Tensor();
        auto y = torch::empty({x.size(0), x.size(1), sizes.heads, 2 * sizes.pairs}, x.options());
        AT_DISPATCH_FLOATING_TYPES_AND(torch::kBFloat16, x.scalar_type(), "turn_pairs", [&] {
            using Real = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
            for_each_head(sizes.heads, [&](std::int64_t h) {
                turn_head(Head<Real>(h, sizes.heads, choice.pairs, angles, factor), sizes,
                          x.data_ptr<scalar_t>() + h * sizes.width, y.data_ptr<scalar_t>() + h * 2 * sizes.pairs);
            });
        });
        context->save_for_backward({x, choice.pairs, angles.cosine, angles.sine, factor});
        if (factor_Hp2) context->saved_data["factor_type"] = factor_Hp2->scalar_type();
        return y;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto saved = context->get_saved_variables();
        const auto& x = saved[0];
        const Angles angles{saved[2], saved[3]};
        const auto& factor = saved[4];
        const auto sizes = Sizes::of(x, {saved[1], {}});
        const auto y_gradient = gradients[0].contiguous();
        auto x_gradient = torch::empty_like(x);
        auto factor_gradient = factor.defined() ? torch::zeros_like(factor) : Tensor();
        AT_DISPATCH_FLOATING_TYPES_AND(torch::kBFloat16, x.scalar_type(), "turn_pairs", [&] {
            using Real = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
            for_each_head(sizes.heads, [&](std::int64_t h) {
                turn_head_back<scalar_t, Real>(
                    Head<Real>(h, sizes.heads, saved[1], angles, factor), sizes,
                    x.data_ptr<scalar_t>() + h * sizes.width, y_gradient.data_ptr<scalar_t>() + h * 2 * sizes.pairs,
                    {x_gradient.data_ptr<scalar_t>() + h * sizes.width,
                     factor.defined() ? factor_gradient.data_ptr<Real>() + h * 2 * sizes.pairs : nullptr});
            });
        });
        if (factor.defined()) factor_gradient = factor_gradient.to(context->saved_data["factor_type"].toScalarType());
        return {x_gradient, factor_gradient, {}};
    }
};

/// [rows, ...] as [heads, ...].
Tensor for_heads(const Tensor& rows, std::int64_t heads, std::int64_t dim) {
    return rows.repeat_interleave(heads / rows.size(dim), dim);
}

/// x * (re + j im), half-split.
Tensor times(const Tensor& x, const Tensor& re, const Tensor& im) {
    const auto halves = x.chunk(2, -1);
    return torch::cat({halves[0] * re - halves[1] * im, halves[1] * re + halves[0] * im}, -1);
}

}  // namespace

Tensor turn_pairs(const Tensor& x, const PairChoice& choice, const Tensor& factor) {
    if (!x.device().is_cpu()) return turn_pairs_by_operations(x, choice, factor);
    return TurnPairs::apply(x, factor.defined() ? std::optional(factor) : std::nullopt, choice);
}

Tensor turn_pairs_by_operations(const Tensor& x, const PairChoice& choice, const Tensor& factor) {
    auto y = x.to(precise_type(x.scalar_type()));
    if (choice.pairs.defined()) {
        const auto pairs = for_heads(choice.pairs, x.size(2), 0);
        const auto dims = torch::cat({pairs, pairs + x.size(3) / 2}, 1).view({1, 1, x.size(2), -1});
        y = y.gather(3, dims.expand({x.size(0), x.size(1), -1, -1}));
    }
    if (factor.defined()) y = times(y, factor.select(-1, 0), factor.select(-1, 1));
    if (choice.frequencies.defined()) {
        const auto angles = angles_of(choice.frequencies, x.size(1));
        y = times(y, for_heads(angles.cosine, x.size(2), 1), for_heads(angles.sine, x.size(2), 1));
    }
    return y.to(x.scalar_type());
}

}  // namespace mha2mla::model
