#include <ATen/Context.h>
#include <mutex>
#include <tuple>

#include "core/error.h"
#include "model/attention.h"
#include "model/autocast.h"
#include "model/causal_softmax_loops.h"

namespace mha2mla::model {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Windows up to here are attended to by the products below, whose matrices grow with the square of a window. Up to
/// half of it, probabilities are kept for the backward pass, else computed again.
constexpr std::int64_t longest_window = 2048;

/// Tokens of a KV head as the rows of a matrix, `group` rows a token: [batch G, tokens group, width].
Tensor as_matrices(const Tensor& x_BTHd, std::int64_t kv_heads) {
    const auto split = x_BTHd.unflatten(2, {kv_heads, x_BTHd.size(2) / kv_heads});
    return split.permute({0, 2, 1, 3, 4}).flatten(2, 3).flatten(0, 1).contiguous();
}

/// And back.
Tensor as_heads(const Tensor& rows, std::int64_t batch, std::int64_t tokens) {
    const auto split = rows.unflatten(1, {tokens, -1}).unflatten(0, {batch, -1});
    return split.permute({0, 2, 1, 3, 4}).flatten(2, 3);
}

/// While it lives, products of floats may round their factors to bf16. They add in fp32 all the same. The setting is
/// the whole process's, so that one thread at a time may change it.
class RoundedFactors {
public:
    RoundedFactors() : alone_(mutex()), before_(context().float32Precision(backend, operation)) {
        context().setFloat32Precision(backend, operation, at::Float32Precision::BF16);
    }
    ~RoundedFactors() { context().setFloat32Precision(backend, operation, before_); }
    RoundedFactors(const RoundedFactors&) = delete;
    RoundedFactors& operator=(const RoundedFactors&) = delete;

private:
    static at::Context& context() { return at::globalContext(); }
    static std::mutex& mutex() {
        static std::mutex one;
        return one;
    }

    static constexpr auto backend = at::Float32Backend::MKLDNN;
    static constexpr auto operation = at::Float32Op::MATMUL;

    std::lock_guard<std::mutex> alone_;
    at::Float32Precision before_;
};

/// a bᵀ of bf16 matrices in fp32: logits must not be rounded. As floats, since LibTorch rounds products of bf16.
Tensor precise_product(const Tensor& a, const Tensor& b) {
    const Autocast as_they_are(a.device(), false);
    const RoundedFactors factors_are_bf16;
    return torch::bmm(a.to(torch::kFloat32), b.to(torch::kFloat32).transpose(1, 2));
}

/// softmax(q kᵀ scale) v of bf16 matrices, the queries of a group of heads below each other: every key and value is
/// used for the whole group at once, and its gradient is a sum over the group without further ado.
struct AttentionByProducts : torch::autograd::Function<AttentionByProducts> {
    static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v, double scale) {
        const auto group = q.size(1) / k.size(1);
        const auto probabilities = causal_softmax(precise_product(q, k), group, scale);
        const bool keeps = k.size(1) <= longest_window / 2;
        context->save_for_backward({q, k, v, keeps ? probabilities : Tensor()});
        context->saved_data["scale"] = scale;
        return torch::bmm(probabilities, v);
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto saved = context->get_saved_variables();
        const auto& [q, k, v] = std::tie(saved[0], saved[1], saved[2]);
        const auto scale = context->saved_data["scale"].toDouble();
        const auto group = q.size(1) / k.size(1);
        const auto p = saved[3].defined() ? saved[3] : causal_softmax(precise_product(q, k), group, scale);
        const auto given = gradients[0].contiguous();
        const auto v_gradient = torch::bmm(p.transpose(1, 2), given);
        const auto logits_gradient = torch::bmm(given, v.transpose(1, 2));
        causal_softmax_back(p, logits_gradient, group, scale);
        return {torch::bmm(logits_gradient, k), torch::bmm(logits_gradient.transpose(1, 2), q), v_gradient, {}};
    }
};

}  // namespace

Tensor causal_attention(const Tensor& q_BTHd, const Tensor& k_BTGd, const Tensor& v_BTGv, double scale) {
    const auto kv_heads = k_BTGd.size(2);
    const auto tokens = q_BTHd.size(1);
    core::invariant(k_BTGd.size(1) == tokens && v_BTGv.size(1) == tokens, "every token has a query, a key and a value");
    const bool rounded = q_BTHd.scalar_type() == torch::kBFloat16;
    if (rounded && q_BTHd.device().is_cpu() && tokens <= longest_window) {
        const auto mixed = AttentionByProducts::apply(as_matrices(q_BTHd, kv_heads), as_matrices(k_BTGd, kv_heads),
                                                      as_matrices(v_BTGv, kv_heads), scale);
        return as_heads(mixed, q_BTHd.size(0), tokens).flatten(2);
    }
    const auto group = q_BTHd.size(2) / kv_heads;
    const auto q = q_BTHd.transpose(1, 2);
    const auto k = k_BTGd.transpose(1, 2).repeat_interleave(group, 1);
    auto v = v_BTGv.transpose(1, 2).repeat_interleave(group, 1);
    // In bf16, LibTorch has a fused kernel where all widths are equal, and else computes in floats: zeros are cheaper.
    const auto width = v.size(3);
    if (rounded && width < q.size(3)) v = torch::constant_pad_nd(v, {0, q.size(3) - width});
    const auto mixed_BHTv =
        at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{}, /*dropout_p=*/0.0, /*is_causal=*/true, scale);
    return mixed_BHTv.slice(3, 0, width).transpose(1, 2).flatten(2);
}

}  // namespace mha2mla::model
