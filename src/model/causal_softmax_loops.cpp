#include "model/causal_softmax_loops.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "model/vector_loops.h"

namespace mha2mla::model {
namespace {

using c10::BFloat16;
using torch::Tensor;

/// A row of so many keys, of which the first `seen` count.
struct Keys {
    std::int64_t seen;
    std::int64_t all;
};

/// Uses the logits up: an exponential costs more than a float in the cache.
MHA2MLA_VECTOR_LOOPS void softmax_row(float* logits, float scale, const Keys& keys, BFloat16* probabilities) {
    float largest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : largest)
    for (std::int64_t i = 0; i < keys.seen; ++i) largest = std::max(largest, logits[i]);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < keys.seen; ++i) {
        logits[i] = exp_of(scale * (logits[i] - largest));
        sum += logits[i];
    }
    const float inverse = 1 / sum;
#pragma omp simd
    for (std::int64_t i = 0; i < keys.seen; ++i) store(logits[i] * inverse, probabilities[i]);
    std::fill(probabilities + keys.seen, probabilities + keys.all, BFloat16(0));
}

MHA2MLA_VECTOR_LOOPS void softmax_row_back(const BFloat16* probabilities, float scale, const Keys& keys,
                                           BFloat16* gradient) {
    float along = 0;
#pragma omp simd reduction(+ : along)
    for (std::int64_t i = 0; i < keys.seen; ++i) {
        along += static_cast<float>(probabilities[i]) * static_cast<float>(gradient[i]);
    }
#pragma omp simd
    for (std::int64_t i = 0; i < keys.seen; ++i) {
        const float across = static_cast<float>(gradient[i]) - along;
        store(scale * static_cast<float>(probabilities[i]) * across, gradient[i]);
    }
    std::fill(gradient + keys.seen, gradient + keys.all, BFloat16(0));
}

/// Calls task(first element of a row, its keys) for all rows; each thread takes every parts-th, since later ones see
/// more.
template <typename Task>
void for_each_row(const Tensor& matrix_QK, const CausalRows& rows, const Task& task) {
    const auto count = matrix_QK.size(0);
    const auto keys = matrix_QK.size(1);
    core::invariant(count == (keys - rows.first_token) * rows.group && matrix_QK.is_contiguous(),
                    "each token from the first on has a row for each head of the group");
    const std::int64_t parts = at::get_num_threads();
    at::parallel_for(0, parts, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t part = first; part < last; ++part) {
            for (std::int64_t row = part; row < count; row += parts) {
                task(row * keys, Keys{.seen = rows.first_token + row / rows.group + 1, .all = keys});
            }
        }
    });
}

}  // namespace

Tensor causal_softmax(const Tensor& logits_QK, const CausalRows& rows, double scale) {
    core::invariant(scale > 0, "the largest logit stays the largest");
    auto probabilities = torch::empty(logits_QK.sizes(), logits_QK.options().dtype(torch::kBFloat16));
    auto* const from = logits_QK.data_ptr<float>();
    auto* const to = probabilities.data_ptr<BFloat16>();
    for_each_row(logits_QK, rows, [&](std::int64_t begin, const Keys& keys) {
        softmax_row(from + begin, static_cast<float>(scale), keys, to + begin);
    });
    return probabilities;
}

void causal_softmax_back(const Tensor& probabilities_QK, const Tensor& gradient_QK, const CausalRows& rows,
                         double scale) {
    core::invariant(probabilities_QK.is_contiguous() && probabilities_QK.sizes() == gradient_QK.sizes(),
                    "each probability has a gradient");
    const auto* const from = probabilities_QK.data_ptr<BFloat16>();
    auto* const to = gradient_QK.data_ptr<BFloat16>();
    for_each_row(gradient_QK, rows, [&](std::int64_t begin, const Keys& keys) {
        softmax_row_back(from + begin, static_cast<float>(scale), keys, to + begin);
    });
}

}  // namespace mha2mla::model
