#include "finetune/vocabulary_loops.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "model/number_types.h"
#include "model/vector_loops.h"

namespace mha2mla::finetune {
namespace {

using model::exp_of;
using torch::Tensor;

/// One row, as the vocabulary is wide.
template <typename Number>
struct Row {
    Number* logits;         // of the student; becomes the gradient
    const Number* teacher;  // null: there is none
    std::int64_t size;
    std::int64_t target;
};

/// log Σ exp(logits / T)
template <typename Number, typename Real>
MHA2MLA_INLINE Real log_sum_exp(const Number* logits, std::int64_t size, Real inverse_temperature) {
    Real largest = -std::numeric_limits<Real>::infinity();
#pragma omp simd reduction(max : largest)
    for (std::int64_t i = 0; i < size; ++i) largest = std::max(largest, static_cast<Real>(logits[i]));
    largest *= inverse_temperature;
    Real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < size; ++i) {
        sum += exp_of(static_cast<Real>(logits[i]) * inverse_temperature - largest);
    }
    return largest + std::log(sum);
}

/// (1 - a) T² KL(q | p) with q and p the tempered distributions of teacher and student; its gradient is (1 - a) T (p -
/// q).
template <typename Number, typename Real>
MHA2MLA_INLINE double add_divergence(const Row<Number>& row, const VocabularyLossOptions& options, Real* gradient) {
    const auto temperature = static_cast<Real>(options.temperature);
    const Real inverse = 1 / temperature;
    const Real weight = static_cast<Real>(1 - options.text_share) * temperature;
    const Real student_sum = log_sum_exp(row.logits, row.size, inverse);
    const Real teacher_sum = log_sum_exp(row.teacher, row.size, inverse);
    Real divergence = 0;
#pragma omp simd reduction(+ : divergence)
    for (std::int64_t i = 0; i < row.size; ++i) {
        const Real log_p = static_cast<Real>(row.logits[i]) * inverse - student_sum;
        const Real log_q = static_cast<Real>(row.teacher[i]) * inverse - teacher_sum;
        const Real q = exp_of(log_q);
        divergence += q * (log_q - log_p);
        gradient[i] += weight * (exp_of(log_p) - q);
    }
    return static_cast<double>(weight * temperature * divergence);
}

/// -a log p[target]; its gradient is a (p - 1 at the target).
template <typename Number, typename Real>
MHA2MLA_INLINE double add_cross_entropy(const Row<Number>& row, double share, Real* gradient) {
    const auto weight = static_cast<Real>(share);
    const Real sum = log_sum_exp(row.logits, row.size, Real{1});
#pragma omp simd
    for (std::int64_t i = 0; i < row.size; ++i) {
        gradient[i] += weight * exp_of(static_cast<Real>(row.logits[i]) - sum);
    }
    gradient[row.target] -= weight;
    return share * static_cast<double>(sum - static_cast<Real>(row.logits[row.target]));
}

template <typename Number, typename Real>
MHA2MLA_INLINE double row_to_gradient(const Row<Number>& row, const VocabularyLossOptions& options,
                                      std::vector<Real>& gradient) {
    std::fill(gradient.begin(), gradient.end(), Real{0});
    double loss = 0;
    if (options.text_share < 1) loss += add_divergence(row, options, gradient.data());
    if (options.text_share > 0) loss += add_cross_entropy(row, options.text_share, gradient.data());
    const Real* const from = gradient.data();
#pragma omp simd
    for (std::int64_t i = 0; i < row.size; ++i) model::store(from[i], row.logits[i]);
    return loss;
}

MHA2MLA_VECTOR_LOOPS double one_row(const Row<c10::BFloat16>& row, const VocabularyLossOptions& options,
                                    std::vector<float>& gradient) {
    return row_to_gradient(row, options, gradient);
}

MHA2MLA_VECTOR_LOOPS double one_row(const Row<float>& row, const VocabularyLossOptions& options,
                                    std::vector<float>& gradient) {
    return row_to_gradient(row, options, gradient);
}

double one_row(const Row<double>& row, const VocabularyLossOptions& options, std::vector<double>& gradient) {
    return row_to_gradient(row, options, gradient);
}

template <typename Number, typename Real>
double all_rows(const Tensor& logits_NV, const Tensor& teacher_NV, const Tensor& targets_N,
                const VocabularyLossOptions& options) {
    const auto width = logits_NV.size(1);
    std::vector<double> losses(static_cast<std::size_t>(logits_NV.size(0)));
    at::parallel_for(0, logits_NV.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
        std::vector<Real> gradient(static_cast<std::size_t>(width));
        for (std::int64_t n = begin; n < end; ++n) {
            const Row<Number> row{.logits = logits_NV.data_ptr<Number>() + n * width,
                                  .teacher = teacher_NV.defined() ? teacher_NV.data_ptr<Number>() + n * width : nullptr,
                                  .size = width,
                                  .target = targets_N.data_ptr<std::int64_t>()[n]};
            losses[static_cast<std::size_t>(n)] = one_row(row, options, gradient);
        }
    });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace

double logits_to_gradient(const Tensor& logits_NV, const Tensor& teacher_NV, const Tensor& targets_N,
                          const VocabularyLossOptions& options) {
    core::invariant(logits_NV.is_contiguous() && targets_N.is_contiguous(), "rows lie one after the other");
    core::invariant(targets_N.numel() == logits_NV.size(0), "each row has a target");
    core::invariant(options.text_share == 1 || (teacher_NV.sizes() == logits_NV.sizes() && teacher_NV.is_contiguous()),
                    "the teacher has a logit for each of the student's");
    core::invariant(
        options.text_share == 0 || targets_N.numel() == 0 ||
            (targets_N.min().item<std::int64_t>() >= 0 && targets_N.max().item<std::int64_t>() < logits_NV.size(1)),
        "targets are of the vocabulary");
    double loss = 0;
    model::for_number_type(logits_NV.scalar_type(), [&]<typename Number, typename Real>() {
        loss = all_rows<Number, Real>(logits_NV, teacher_NV, targets_N, options);
    });
    return loss;
}

}  // namespace mha2mla::finetune
