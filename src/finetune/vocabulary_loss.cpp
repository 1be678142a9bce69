#include "finetune/vocabulary_loss.h"

#include <algorithm>

#include "core/error.h"
#include "finetune/vocabulary_loops.h"
#include "model/autocast.h"
#include "model/options.h"

namespace mha2mla::finetune {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor in_precise_type(const Tensor& x) { return x.to(model::precise_type(x.scalar_type())); }

/// -a log softmax(s)[target]
LossAndGradient cross_entropy(const Tensor& logits_NV, const Tensor& targets_N, double share) {
    auto log_p = logits_NV.log_softmax(1);
    const auto at_targets = targets_N.unsqueeze(1);
    const auto loss = -share * log_p.gather(1, at_targets).sum();
    auto gradient = log_p.exp_();
    gradient.scatter_add_(1, at_targets, torch::full_like(at_targets, -1, gradient.options()));
    return {loss, share == 1 ? gradient : gradient.mul_(share)};
}

/// log softmax(logits / T)
Tensor tempered(const Tensor& logits_NV, double temperature) {
    return (temperature == 1 ? logits_NV : logits_NV / temperature).log_softmax(1);
}

/// (1 - a) T² KL(softmax(t / T) | softmax(s / T)). In place: each tensor has the whole
/// vocabulary for a chunk's rows.
LossAndGradient divergence(const Tensor& logits_NV, const Tensor& teacher_NV, const VocabularyLossOptions& options) {
    const double t = options.temperature;
    const double share = 1 - options.text_share;
    auto log_p = tempered(logits_NV, t);
    auto log_target = tempered(teacher_NV, t);
    const auto target = log_target.exp();
    const auto log_ratio = log_target.sub_(log_p);
    const auto loss = share * t * t * torch::dot(target.view(-1), log_ratio.view(-1));
    auto gradient = log_p.exp_().sub_(target);
    return {loss, share * t == 1 ? gradient : gradient.mul_(share * t)};
}

/// What the student is compared with.
struct Lesson {
    Head teacher;
    Tensor targets_N;
    VocabularyLossOptions options;
    bool with_gradients = true;

    /// Overwrites the logits.
    LossAndGradient operator()(const Tensor& logits_NV, std::int64_t begin, std::int64_t end) const {
        Tensor teacher_NV;
        if (options.text_share < 1) {
            teacher_NV = torch::linear(teacher.hidden_NE.slice(0, begin, end), teacher.matrix_VE);
            teacher_NV = teacher_NV.to(logits_NV.scalar_type());
        }
        const auto targets = targets_N.slice(0, begin, end);
        if (!logits_NV.device().is_cpu()) return loss_by_operations(logits_NV, teacher_NV, targets, options);
        const double loss = logits_to_gradient(logits_NV, teacher_NV, targets, options);
        return {torch::full({}, loss, model::precise_type(logits_NV.scalar_type())), logits_NV};
    }
};

/// sum += aᵀ b, a product in the type of both.
void add_product(const Tensor& sum, const Tensor& a, const Tensor& b) {
    if (sum.scalar_type() == a.scalar_type()) {
        sum.addmm_(a.t(), b.to(a.scalar_type()));
    } else {
        sum.add_(a.t().mm(b.to(a.scalar_type())));
    }
}

struct VocabularyLoss : torch::autograd::Function<VocabularyLoss> {
    static Tensor forward(AutogradContext* context, const Tensor& hidden_NE, const Tensor& matrix_VE,
                          const Lesson& lesson) {
        auto hidden_gradient = lesson.with_gradients ? torch::empty_like(hidden_NE) : Tensor();
        const bool matrix_learns = lesson.with_gradients && matrix_VE.requires_grad();
        auto matrix_gradient = matrix_learns ? torch::zeros_like(matrix_VE) : Tensor();
        const auto factor_VE = model::rounded_factor(matrix_VE);
        auto sum = torch::zeros({}, hidden_NE.options().dtype(model::precise_type(hidden_NE.scalar_type())));
        const auto row_bytes = static_cast<std::int64_t>(factor_VE.element_size()) * factor_VE.size(0);
        const auto rows_at_a_time = std::max<std::int64_t>(1, lesson.options.bytes_at_a_time / row_bytes);
        for (std::int64_t begin = 0; begin < hidden_NE.size(0); begin += rows_at_a_time) {
            const std::int64_t end = std::min(begin + rows_at_a_time, hidden_NE.size(0));
            const auto rows = hidden_NE.slice(0, begin, end);
            const auto chunk = lesson(torch::linear(rows, factor_VE), begin, end);
            sum += chunk.loss;
            if (!lesson.with_gradients) continue;
            const auto gradient = chunk.gradient_NV.to(factor_VE.scalar_type());
            hidden_gradient.slice(0, begin, end).copy_(gradient.mm(factor_VE));
            if (matrix_learns) add_product(matrix_gradient, gradient, rows);
        }
        context->save_for_backward({hidden_gradient, matrix_gradient});
        return sum;
    }
    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto saved = context->get_saved_variables();
        const auto scaled = [&](const Tensor& gradient) {
            return gradient.defined() ? gradient * gradients[0] : Tensor();
        };
        return {scaled(saved[0]), scaled(saved[1]), {}};
    }
};

}  // namespace

LossAndGradient loss_by_operations(const Tensor& student_NV, const Tensor& teacher_NV, const Tensor& targets_N,
                                   const VocabularyLossOptions& options) {
    const auto logits_NV = in_precise_type(student_NV);
    if (options.text_share == 1) return cross_entropy(logits_NV, targets_N, 1);
    auto result = divergence(logits_NV, in_precise_type(teacher_NV), options);
    if (options.text_share == 0) return result;
    const auto text = cross_entropy(logits_NV, targets_N, options.text_share);
    return {result.loss + text.loss, result.gradient_NV.add_(text.gradient_NV)};
}

Tensor vocabulary_loss(const Head& student, const Head& teacher, const Tensor& targets_N,
                       const VocabularyLossOptions& options) {
    core::invariant(options.text_share == 1 || teacher.hidden_NE.defined(), "a divergence needs a teacher");
    const Head rounded{teacher.hidden_NE,
                       teacher.matrix_VE.defined() ? model::rounded_factor(teacher.matrix_VE) : Tensor()};
    return VocabularyLoss::apply(student.hidden_NE, student.matrix_VE,
                                 Lesson{rounded, targets_N, options, torch::GradMode::is_enabled()});
}

}  // namespace mha2mla::finetune
