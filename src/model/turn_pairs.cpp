#include "model/turn_pairs.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/error.h"
#include "model/frequencies.h"
#include "model/number_types.h"

namespace mha2mla::model {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Which pairs of one head are taken, and what they are multiplied by. Real is the type of sums.
template <typename Real>
class HeadTurns {
public:
    /// `pairs`, `angles` and `factor` as in the header, contiguous; undefined ones are left out.
    HeadTurns(std::int64_t head, std::int64_t heads, const Tensor& pairs, const Angles& angles, const Tensor& factor)
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

    static Sizes of(c10::IntArrayRef x, const PairChoice& choice) {
        const auto pairs = choice.pairs.defined() ? choice.pairs.size(1) : x[3] / 2;
        return {x[0] * x[1], x[1], x[2], x[3], pairs};
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
void turn_head(const HeadTurns<Real>& head, const Sizes& sizes, const Number* x, Number* y) {
    const std::int64_t half = sizes.width / 2;
    for (std::int64_t row = 0; row < sizes.rows; ++row) {
        const Number* const from = x + row * sizes.heads * sizes.width;
        Number* const to = y + row * sizes.heads * 2 * sizes.pairs;
        for (std::int64_t i = 0; i < sizes.pairs; ++i) {
            const std::int64_t pair = head.pair(i);
            const typename HeadTurns<Real>::Complex number{from[pair], from[pair + half]};
            const auto product = number * (head.turn(row % sizes.tokens, i) * head.factor(i));
            to[i] = static_cast<Number>(product.re);
            to[i + sizes.pairs] = static_cast<Number>(product.im);
        }
    }
}

/// Where the gradients of a head go.
template <typename Number>
struct Gradients {
    Number* x;       // set
    double* factor;  // added to; null: not asked for
};

/// Passes the gradient of y on.
template <typename Number, typename Real>
void turn_head_back(const HeadTurns<Real>& head, const Sizes& sizes, const Number* x, const Number* y_gradient,
                    const Gradients<Number>& gradients) {
    const std::int64_t half = sizes.width / 2;
    std::vector<Real> sums(static_cast<std::size_t>(sizes.width));
    for (std::int64_t row = 0; row < sizes.rows; ++row) {
        const std::int64_t start = row * sizes.heads * sizes.width;
        const Number* const gradient = y_gradient + row * sizes.heads * 2 * sizes.pairs;
        std::fill(sums.begin(), sums.end(), Real{0});
        for (std::int64_t i = 0; i < sizes.pairs; ++i) {
            const std::int64_t pair = head.pair(i);
            const typename HeadTurns<Real>::Complex given{gradient[i], gradient[i + sizes.pairs]};
            const auto turned = given * head.turn(row % sizes.tokens, i).conjugate();
            const auto to_x = turned * head.factor(i).conjugate();
            sums[static_cast<std::size_t>(pair)] += to_x.re;
            sums[static_cast<std::size_t>(pair + half)] += to_x.im;
            if (gradients.factor == nullptr) continue;
            const typename HeadTurns<Real>::Complex number{x[start + pair], x[start + pair + half]};
            const auto to_factor = turned * number.conjugate();
            gradients.factor[2 * i] += static_cast<double>(to_factor.re);
            gradients.factor[2 * i + 1] += static_cast<double>(to_factor.im);
        }
        for (std::int64_t i = 0; i < sizes.width; ++i)
            gradients.x[start + i] = static_cast<Number>(sums[static_cast<std::size_t>(i)]);
    }
}

struct TurnPairs : torch::autograd::Function<TurnPairs> {
    static Tensor forward(AutogradContext* context, const Tensor& x_BTHd, const std::optional<Tensor>& factor_Hp2,
                          const PairChoice& choice) {
        const auto x = x_BTHd.contiguous();
        const auto sizes = Sizes::of(x.sizes(), choice);
        const auto real = precise_type(x.scalar_type());
        Angles angles;
        if (choice.frequencies.defined()) angles = angles_of(choice.frequencies.to(real), sizes.tokens);
        const auto factor = factor_Hp2 ? factor_Hp2->to(real).contiguous() : Tensor();
        auto y = torch::empty({x.size(0), x.size(1), sizes.heads, 2 * sizes.pairs}, x.options());
        for_number_type(x.scalar_type(), [&]<typename Number, typename Real>() {
            for_each_head(sizes.heads, [&](std::int64_t h) {
                turn_head(HeadTurns<Real>(h, sizes.heads, choice.pairs, angles, factor), sizes,
                          x.data_ptr<Number>() + h * sizes.width, y.data_ptr<Number>() + h * 2 * sizes.pairs);
            });
        });
        // Only the gradient of a factor reads x again.
        const bool factor_learns = factor_Hp2 && factor_Hp2->requires_grad();
        context->save_for_backward({factor_learns ? x : Tensor(), choice.pairs, angles.cosine, angles.sine, factor});
        context->saved_data["sizes"] = x.sizes().vec();
        if (factor_learns) context->saved_data["factor_type"] = factor_Hp2->scalar_type();
        return y;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto saved = context->get_saved_variables();
        const auto& x = saved[0];
        const Angles angles{saved[2], saved[3]};
        const auto shape = context->saved_data["sizes"].toIntVector();
        const auto sizes = Sizes::of(shape, {saved[1], {}});
        const auto y_gradient = gradients[0].contiguous();
        const auto x_gradient = torch::empty(shape, y_gradient.options());
        auto factor_gradient = x.defined() ? torch::zeros(saved[4].sizes(), torch::kFloat64) : Tensor();
        for_number_type(y_gradient.scalar_type(), [&]<typename Number, typename Real>() {
            for_each_head(sizes.heads, [&](std::int64_t h) {
                const Gradients<Number> asked{
                    x_gradient.data_ptr<Number>() + h * sizes.width,
                    x.defined() ? factor_gradient.data_ptr<double>() + h * 2 * sizes.pairs : nullptr};
                turn_head_back(HeadTurns<Real>(h, sizes.heads, saved[1], angles, saved[4]), sizes,
                               x.defined() ? x.data_ptr<Number>() + h * sizes.width : nullptr,
                               y_gradient.data_ptr<Number>() + h * 2 * sizes.pairs, asked);
            });
        });
        if (x.defined()) factor_gradient = factor_gradient.to(context->saved_data["factor_type"].toScalarType());
        return {x_gradient, factor_gradient, {}};
    }
};

/// The kernels trust these. That pairs lie within a head is the choice's promise.
void check(const Tensor& x, const PairChoice& choice, const Tensor& factor) {
    core::invariant(x.dim() == 4 && x.size(3) % 2 == 0, "x is [batch, tokens, heads, pairs]");
    const auto pairs = Sizes::of(x.sizes(), choice).pairs;
    for (const auto& rows : {choice.pairs, choice.frequencies}) {
        if (!rows.defined()) continue;
        core::invariant(rows.dim() == 2 && rows.size(1) == pairs, "a row has a number for each pair");
        core::invariant(rows.size(0) > 0 && x.size(2) % rows.size(0) == 0, "a row serves a run of heads");
    }
    if (choice.pairs.defined()) {
        core::invariant(choice.pairs.scalar_type() == torch::kInt64 && choice.pairs.is_contiguous(), "pairs are int64");
    }
    if (factor.defined()) {
        core::invariant(factor.sizes() == c10::IntArrayRef({x.size(2), pairs, 2}), "a factor for each pair of a head");
    }
}

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
    check(x, choice, factor);
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
