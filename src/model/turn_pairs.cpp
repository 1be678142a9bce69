#include "model/turn_pairs.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/error.h"
#include "model/frequencies.h"
#include "model/number_types.h"
#include "model/thread_parts.h"
#include "model/turn_pairs_loops.h"
#include "model/vector_loops.h"

namespace mha2mla::model {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Sizes {
    std::int64_t rows, tokens, heads, width, pairs;  // rows: tokens of the whole batch

    static Sizes of(c10::IntArrayRef x, const PairChoice& choice) {
        const auto pairs = choice.pairs.defined() ? choice.pairs.size(1) : x[3] / 2;
        return {x[0] * x[1], x[1], x[2], x[3], pairs};
    }
};

/// Which pairs the heads take, and what they are multiplied by, in the type of sums. What is left out is undefined.
struct TurnTensors {
    Tensor pairs_RP;
    Angles angles_TRP;
    Tensor factor_HP2;
};

/// The same for loops over tokens and heads: ones and zeros stand for what is left out.
template <typename Real>
class Turns {
public:
    Turns(const TurnTensors& tensors, const Sizes& sizes)
        : sizes_(sizes),
          pairs_RP_(tensors.pairs_RP),
          cosine_TRP_(angles_or(tensors.angles_TRP.cosine, 1)),
          sine_TRP_(angles_or(tensors.angles_TRP.sine, 0)),
          factor_re_HP_(factor_or(tensors.factor_HP2, 0, 1)),
          factor_im_HP_(factor_or(tensors.factor_HP2, 1, 0)) {}

    PairTurns<Real> at(std::int64_t row, std::int64_t head) const {
        const auto token = cosine_TRP_.size(0) > 1 ? row % sizes_.tokens : 0;
        const auto angle = (token * cosine_TRP_.size(1) + row_of(cosine_TRP_, head)) * sizes_.pairs;
        const auto factor = row_of(factor_re_HP_, head) * sizes_.pairs;
        return {.cosine = cosine_ + angle,
                .sine = sine_ + angle,
                .factor_re = factor_re_ + factor,
                .factor_im = factor_im_ + factor,
                .pairs = sizes_.pairs};
    }
    /// If not, all are taken in order.
    bool picks_pairs() const { return pairs_RP_.defined(); }
    const std::int64_t* pairs(std::int64_t head) const {
        return pairs_RP_.data_ptr<std::int64_t>() + row_of(pairs_RP_, head) * sizes_.pairs;
    }

private:
    Tensor angles_or(const Tensor& angles_TRP, double constant) const {
        return angles_TRP.defined() ? angles_TRP : torch::full({1, 1, sizes_.pairs}, constant, type);
    }
    /// Real or imaginary part.
    Tensor factor_or(const Tensor& factor_HP2, std::int64_t part, double constant) const {
        return factor_HP2.defined() ? factor_HP2.select(2, part).contiguous()
                                    : torch::full({1, sizes_.pairs}, constant, type);
    }
    /// Of the last but one dimension.
    std::int64_t row_of(const Tensor& rows, std::int64_t head) const { return head * rows.size(-2) / sizes_.heads; }

    static constexpr auto type = c10::CppTypeToScalarType<Real>::value;

    Sizes sizes_;
    Tensor pairs_RP_, cosine_TRP_, sine_TRP_, factor_re_HP_, factor_im_HP_;
    const Real* cosine_ = cosine_TRP_.data_ptr<Real>();
    const Real* sine_ = sine_TRP_.data_ptr<Real>();
    const Real* factor_re_ = factor_re_HP_.data_ptr<Real>();
    const Real* factor_im_ = factor_im_HP_.data_ptr<Real>();
};

/// The pairs of a head's numbers x that it takes; those that it picks, one after the other in `scratch`.
template <typename Number, typename Real>
PairHalves<const Number> picked(const Turns<Real>& turns, const Sizes& sizes, std::int64_t head, const Number* x,
                                Number* scratch) {
    const auto half = sizes.width / 2;
    if (!turns.picks_pairs()) return {x, x + half};
    const auto* const pairs = turns.pairs(head);
    for (std::int64_t i = 0; i < sizes.pairs; ++i) {
        scratch[i] = x[pairs[i]];
        scratch[i + sizes.pairs] = x[pairs[i] + half];
    }
    return {scratch, scratch + sizes.pairs};
}

/// Calls task(row, head, part) for the heads of all rows, in parts of the rows, one a thread.
template <typename Task>
void for_each_head(const Sizes& sizes, const Task& task) {
    for_parts(sizes.rows, at::get_num_threads(), [&](std::int64_t begin, std::int64_t end, std::int64_t part) {
        for (std::int64_t row = begin; row < end; ++row) {
            for (std::int64_t head = 0; head < sizes.heads; ++head) task(row, head, part);
        }
    });
}

/// Numbers for each thread, cache lines apart.
template <typename Number>
class Scratch {
public:
    explicit Scratch(std::int64_t count)
        : count_(count + gap), numbers_(static_cast<std::size_t>(count_ * at::get_num_threads())) {}
    Number* of(std::int64_t part) { return numbers_.data() + part * count_; }

private:
    static constexpr std::int64_t gap = 64;

    std::int64_t count_;
    std::vector<Number> numbers_;
};

template <typename Number>
PairHalves<Number> halves(Number* numbers, std::int64_t pairs) {
    return {numbers, numbers + pairs};
}

template <typename Number, typename Real>
void turn_rows(const Turns<Real>& turns, const Sizes& sizes, const Number* x, Number* y) {
    Scratch<Number> scratch(2 * sizes.pairs);
    for_each_head(sizes, [&](std::int64_t row, std::int64_t head, std::int64_t part) {
        const auto index = row * sizes.heads + head;
        turn(picked(turns, sizes, head, x + index * sizes.width, scratch.of(part)), turns.at(row, head),
             halves(y + index * 2 * sizes.pairs, sizes.pairs));
    });
}

/// A pair may be picked twice: gradients are added up before they are rounded.
template <typename Number, typename Real>
void turn_picked_back(const Turns<Real>& turns, const Sizes& sizes, const Number* y_gradient, Number* x_gradient) {
    Scratch<Real> scratch(2 * sizes.pairs + sizes.width);
    for_each_head(sizes, [&](std::int64_t row, std::int64_t head, std::int64_t part) {
        const auto index = row * sizes.heads + head;
        const auto of_pairs = halves(scratch.of(part), sizes.pairs);
        Real* const sums = scratch.of(part) + 2 * sizes.pairs;
        turn(halves(y_gradient + index * 2 * sizes.pairs, sizes.pairs), turns.at(row, head).conjugate(), of_pairs);
        std::fill_n(sums, sizes.width, Real{0});
        const auto* const pairs = turns.pairs(head);
        for (std::int64_t i = 0; i < sizes.pairs; ++i) {
            sums[pairs[i]] += of_pairs.re[i];
            sums[pairs[i] + sizes.width / 2] += of_pairs.im[i];
        }
        for (std::int64_t i = 0; i < sizes.width; ++i) store(sums[i], x_gradient[index * sizes.width + i]);
    });
}

template <typename Number, typename Real>
void turn_rows_back(const Turns<Real>& turns, const Sizes& sizes, const Number* y_gradient, Number* x_gradient) {
    if (turns.picks_pairs()) return turn_picked_back(turns, sizes, y_gradient, x_gradient);
    for_each_head(sizes, [&](std::int64_t row, std::int64_t head, std::int64_t) {
        const auto start = (row * sizes.heads + head) * sizes.width;
        turn(halves(y_gradient + start, sizes.pairs), turns.at(row, head).conjugate(),
             halves(x_gradient + start, sizes.pairs));
    });
}

/// [H, p, 2]. Each thread adds up rows of its own.
template <typename Number, typename Real>
Tensor factor_gradient(const Turns<Real>& turns, const Sizes& sizes, const Number* x, const Number* y_gradient) {
    const auto sums = torch::zeros({at::get_num_threads(), sizes.heads, 2, sizes.pairs}, torch::kFloat64);
    auto* const sum = sums.template data_ptr<double>();
    Scratch<Number> scratch(2 * sizes.pairs);
    for_each_head(sizes, [&](std::int64_t row, std::int64_t head, std::int64_t part) {
        const auto index = row * sizes.heads + head;
        add_factor_gradient(picked(turns, sizes, head, x + index * sizes.width, scratch.of(part)),
                            halves(y_gradient + index * 2 * sizes.pairs, sizes.pairs), turns.at(row, head),
                            halves(sum + (part * sizes.heads + head) * 2 * sizes.pairs, sizes.pairs));
    });
    return sums.sum(0).transpose(1, 2);
}

struct TurnPairs : torch::autograd::Function<TurnPairs> {
    static Tensor forward(AutogradContext* context, const Tensor& x_BTHd, const std::optional<Tensor>& factor_HP2,
                          const PairChoice& choice) {
        const auto x = x_BTHd.contiguous();
        const auto sizes = Sizes::of(x.sizes(), choice);
        const auto real = precise_type(x.scalar_type());
        TurnTensors tensors{.pairs_RP = choice.pairs, .angles_TRP = {}, .factor_HP2 = {}};
        if (choice.frequencies.defined()) tensors.angles_TRP = angles_of(choice.frequencies.to(real), sizes.tokens);
        if (factor_HP2) tensors.factor_HP2 = factor_HP2->to(real);
        auto y = torch::empty({x.size(0), x.size(1), sizes.heads, 2 * sizes.pairs}, x.options());
        for_number_type(x.scalar_type(), [&]<typename Number, typename Real>() {
            turn_rows(Turns<Real>(tensors, sizes), sizes, x.data_ptr<Number>(), y.data_ptr<Number>());
        });
        // Only the gradient of a factor reads x again.
        const bool factor_learns = factor_HP2 && factor_HP2->requires_grad();
        context->save_for_backward({factor_learns ? x : Tensor(), tensors.pairs_RP, tensors.angles_TRP.cosine,
                                    tensors.angles_TRP.sine, tensors.factor_HP2});
        context->saved_data["sizes"] = x.sizes().vec();
        if (factor_learns) context->saved_data["factor_type"] = factor_HP2->scalar_type();
        return y;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto saved = context->get_saved_variables();
        const auto& x = saved[0];
        const TurnTensors tensors{.pairs_RP = saved[1], .angles_TRP = {saved[2], saved[3]}, .factor_HP2 = saved[4]};
        const auto shape = context->saved_data["sizes"].toIntVector();
        const auto sizes = Sizes::of(shape, {tensors.pairs_RP, {}});
        const auto y_gradient = gradients[0].contiguous();
        const auto x_gradient = torch::empty(shape, y_gradient.options());
        Tensor of_factor;
        for_number_type(y_gradient.scalar_type(), [&]<typename Number, typename Real>() {
            const Turns<Real> turns(tensors, sizes);
            turn_rows_back(turns, sizes, y_gradient.data_ptr<Number>(), x_gradient.data_ptr<Number>());
            if (!x.defined()) return;
            of_factor = factor_gradient(turns, sizes, x.data_ptr<Number>(), y_gradient.data_ptr<Number>());
        });
        if (x.defined()) of_factor = of_factor.to(context->saved_data["factor_type"].toScalarType());
        return {x_gradient, of_factor, {}};
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
