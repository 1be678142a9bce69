#include "model/layer_loops.h"

#include <ATen/Parallel.h>

#include "core/error.h"
#include "model/autocast.h"
#include "model/options.h"
#include "model/thread_parts.h"
#include "model/vector_loops.h"

namespace mha2mla::model {
namespace {

using c10::BFloat16;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t numbers_of_a_task = 1 << 15;
constexpr std::int64_t rows_of_a_task = 16;

/// Calls task(Number{}) for bf16 or fp32.
template <typename Task>
void for_short_number_type(torch::Dtype dtype, const Task& task) {
    if (dtype == torch::kBFloat16) {
        task(BFloat16{});
    } else {
        task(0.0F);
    }
}

// --- RMSNorm ------------------------------------------------------------------------------------------------------

/// Rows of a norm, and the numbers that its backward pass needs again.
struct NormRows {
    const float* x;
    const float* weight;
    float* inverse_rms;  // one a row
    std::int64_t size;

    const float* row(std::int64_t r) const { return x + r * size; }
};

template <typename Output>
MHA2MLA_INLINE void norm(const NormRows& rows, float epsilon, Output* y, std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
        const float* const x = rows.row(r);
        Output* const to = y + r * rows.size;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = 0; i < rows.size; ++i) sum += x[i] * x[i];
        const float inverse = 1 / std::sqrt(sum / static_cast<float>(rows.size) + epsilon);
        rows.inverse_rms[r] = inverse;
#pragma omp simd
        for (std::int64_t i = 0; i < rows.size; ++i) store(rows.weight[i] * (x[i] * inverse), to[i]);
    }
}

/// With n = x / rms and g the gradient of y: x's is (g w - n mean(g w n)) / rms, the weight's the sum of g n.
template <typename Output>
struct NormGradients {
    const Output* y;
    float* x;
    float* weight;  // added to; null: not asked for
};

template <typename Output>
MHA2MLA_INLINE void norm_back(const NormRows& rows, const NormGradients<Output>& gradients, std::int64_t begin,
                              std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
        const float* const x = rows.row(r);
        const Output* const given = gradients.y + r * rows.size;
        float* const to = gradients.x + r * rows.size;
        const float inverse = rows.inverse_rms[r];
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = 0; i < rows.size; ++i) sum += static_cast<float>(given[i]) * rows.weight[i] * x[i];
        const float along = sum * inverse * inverse / static_cast<float>(rows.size);
#pragma omp simd
        for (std::int64_t i = 0; i < rows.size; ++i) {
            to[i] = (static_cast<float>(given[i]) * rows.weight[i] - x[i] * along) * inverse;
        }
        if (gradients.weight == nullptr) continue;
#pragma omp simd
        for (std::int64_t i = 0; i < rows.size; ++i) {
            gradients.weight[i] += static_cast<float>(given[i]) * x[i] * inverse;
        }
    }
}

MHA2MLA_VECTOR_LOOPS void norm_some(const NormRows& rows, float epsilon, float* y, std::int64_t begin,
                                    std::int64_t end) {
    norm(rows, epsilon, y, begin, end);
}
MHA2MLA_VECTOR_LOOPS void norm_some(const NormRows& rows, float epsilon, BFloat16* y, std::int64_t begin,
                                    std::int64_t end) {
    norm(rows, epsilon, y, begin, end);
}
MHA2MLA_VECTOR_LOOPS void norm_some_back(const NormRows& rows, const NormGradients<float>& gradients,
                                         std::int64_t begin, std::int64_t end) {
    norm_back(rows, gradients, begin, end);
}
MHA2MLA_VECTOR_LOOPS void norm_some_back(const NormRows& rows, const NormGradients<BFloat16>& gradients,
                                         std::int64_t begin, std::int64_t end) {
    norm_back(rows, gradients, begin, end);
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
    static Tensor forward(AutogradContext* context, const Tensor& x_in, const Tensor& weight, double epsilon) {
        const auto x = x_in.contiguous();
        const auto size = x.size(-1);
        const auto inverse_rms = torch::empty({x.numel() / size}, x.options());
        auto y = torch::empty(x.sizes(),
                              x.options().dtype(rounds_products(x.device()) ? torch::kBFloat16 : torch::kFloat32));
        const NormRows rows{x.data_ptr<float>(), weight.data_ptr<float>(), inverse_rms.data_ptr<float>(), size};
        for_short_number_type(y.scalar_type(), [&]<typename Output>(Output) {
            at::parallel_for(0, inverse_rms.numel(), rows_of_a_task, [&](std::int64_t begin, std::int64_t end) {
                norm_some(rows, static_cast<float>(epsilon), y.data_ptr<Output>(), begin, end);
            });
        });
        context->save_for_backward({x, weight, inverse_rms});
        return y;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto saved = context->get_saved_variables();
        const auto& x = saved[0];
        const auto size = x.size(-1);
        const auto given = gradients[0].contiguous();
        const auto x_gradient = torch::empty_like(x);
        const std::int64_t parts = at::get_num_threads();
        const bool weight_learns = context->needs_input_grad(1);
        const auto weight_sums = weight_learns ? torch::zeros({parts, size}, x.options()) : Tensor();
        const NormRows rows{x.data_ptr<float>(), saved[1].data_ptr<float>(), saved[2].data_ptr<float>(), size};
        for_short_number_type(given.scalar_type(), [&]<typename Output>(Output) {
            const auto* const from = given.data_ptr<Output>();
            for_parts(saved[2].numel(), parts, [&](std::int64_t begin, std::int64_t end, std::int64_t part) {
                float* const sums = weight_learns ? weight_sums.data_ptr<float>() + part * size : nullptr;
                norm_some_back(rows, NormGradients{from, x_gradient.data_ptr<float>(), sums}, begin, end);
            });
        });
        return {x_gradient, weight_learns ? weight_sums.sum(0) : Tensor(), {}};
    }
};

// --- SwiGLU -------------------------------------------------------------------------------------------------------

MHA2MLA_INLINE float sigmoid(float x) { return 1 / (1 + exp_of(-x)); }

template <typename Number>
struct GatedNumbers {
    const Number* gate;
    const Number* up;
};

template <typename Number>
MHA2MLA_INLINE void gate_numbers(const GatedNumbers<Number>& x, Number* y, std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
        const auto gate = static_cast<float>(x.gate[i]);
        store(gate * sigmoid(gate) * static_cast<float>(x.up[i]), y[i]);
    }
}

/// d silu(g) = s (1 + g (1 - s)) with s the sigmoid.
template <typename Number>
struct GatedGradients {
    const Number* y;
    Number* gate;
    Number* up;
};

template <typename Number>
MHA2MLA_INLINE void gate_numbers_back(const GatedNumbers<Number>& x, const GatedGradients<Number>& gradients,
                                      std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
        const auto gate = static_cast<float>(x.gate[i]);
        const auto given = static_cast<float>(gradients.y[i]);
        const float s = sigmoid(gate);
        store(given * gate * s, gradients.up[i]);
        store(given * static_cast<float>(x.up[i]) * s * (1 + gate * (1 - s)), gradients.gate[i]);
    }
}

MHA2MLA_VECTOR_LOOPS void gate_some(const GatedNumbers<float>& x, float* y, std::int64_t begin, std::int64_t end) {
    gate_numbers(x, y, begin, end);
}
MHA2MLA_VECTOR_LOOPS void gate_some(const GatedNumbers<BFloat16>& x, BFloat16* y, std::int64_t begin,
                                    std::int64_t end) {
    gate_numbers(x, y, begin, end);
}
MHA2MLA_VECTOR_LOOPS void gate_some_back(const GatedNumbers<float>& x, const GatedGradients<float>& gradients,
                                         std::int64_t begin, std::int64_t end) {
    gate_numbers_back(x, gradients, begin, end);
}
MHA2MLA_VECTOR_LOOPS void gate_some_back(const GatedNumbers<BFloat16>& x, const GatedGradients<BFloat16>& gradients,
                                         std::int64_t begin, std::int64_t end) {
    gate_numbers_back(x, gradients, begin, end);
}

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
    static Tensor forward(AutogradContext* context, const Tensor& gate_in, const Tensor& up_in) {
        const auto gate = gate_in.contiguous();
        const auto up = up_in.contiguous();
        auto y = torch::empty_like(gate);
        for_short_number_type(gate.scalar_type(), [&]<typename Number>(Number) {
            const GatedNumbers<Number> x{gate.data_ptr<Number>(), up.data_ptr<Number>()};
            at::parallel_for(0, gate.numel(), numbers_of_a_task, [&](std::int64_t begin, std::int64_t end) {
                gate_some(x, y.data_ptr<Number>(), begin, end);
            });
        });
        context->save_for_backward({gate, up});
        return y;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto saved = context->get_saved_variables();
        const auto given = gradients[0].contiguous();
        const auto gate_gradient = torch::empty_like(saved[0]);
        const auto up_gradient = torch::empty_like(saved[0]);
        for_short_number_type(given.scalar_type(), [&]<typename Number>(Number) {
            const GatedNumbers<Number> x{saved[0].data_ptr<Number>(), saved[1].data_ptr<Number>()};
            const GatedGradients<Number> asked{given.data_ptr<Number>(), gate_gradient.data_ptr<Number>(),
                                               up_gradient.data_ptr<Number>()};
            at::parallel_for(0, given.numel(), numbers_of_a_task,
                             [&](std::int64_t begin, std::int64_t end) { gate_some_back(x, asked, begin, end); });
        });
        return {gate_gradient, up_gradient};
    }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon) {
    core::invariant(weight.dim() == 1 && x.size(-1) == weight.size(0), "a norm has a weight for each channel");
    const bool floats = x.scalar_type() == torch::kFloat32 && weight.scalar_type() == torch::kFloat32;
    if (!floats || !x.device().is_cpu()) return rms_norm_by_operations(x, weight, epsilon);
    core::invariant(weight.device() == x.device() && weight.is_contiguous(),
                    "a norm's weights lie where its inputs do");
    return RmsNormFunction::apply(x, weight, epsilon);
}

Tensor swiglu(const Tensor& gate, const Tensor& up) {
    core::invariant(gate.sizes() == up.sizes() && gate.options().type_equal(up.options()), "gate and up are alike");
    const bool loops = gate.scalar_type() == torch::kFloat32 || gate.scalar_type() == torch::kBFloat16;
    if (!loops || !gate.device().is_cpu()) return swiglu_by_operations(gate, up);
    return SwigluFunction::apply(gate, up);
}

Tensor rms_norm_by_operations(const Tensor& x, const Tensor& weight, double epsilon) {
    const auto precise = x.to(precise_type(x.scalar_type()));
    const auto inverse_rms = torch::rsqrt(precise.square().mean(-1, /*keepdim=*/true) + epsilon);
    return rounded_factor(weight * (precise * inverse_rms).to(x.scalar_type()));
}

Tensor swiglu_by_operations(const Tensor& gate, const Tensor& up) { return torch::silu(gate) * up; }

}  // namespace mha2mla::model
