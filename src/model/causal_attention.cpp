#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "model/attention.h"
#include "model/autocast.h"
#include "model/causal_softmax_loops.h"
#include "model/rounded_factors.h"

namespace mha2mla::model {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Windows up to here are attended to by the products below, whose matrices grow with the square of a window. Up to
/// half of it, probabilities are kept for the backward pass, else computed again.
constexpr std::int64_t longest_window = 2048;

/// Tokens of a KV head as the rows of a matrix, `group` rows a token, the parts' columns side by side: [batch G, tokens
/// group, width].
Tensor as_matrices(const std::vector<Tensor>& parts_BTHd, std::int64_t kv_heads) {
    std::vector<Tensor> parts;
    for (const auto& part_BTHd : parts_BTHd) {
        parts.push_back(part_BTHd.unflatten(2, {kv_heads, -1}).permute({0, 2, 1, 3, 4}));
    }
    return torch::cat(parts, 4).flatten(2, 3).flatten(0, 1);
}

/// And back.
Tensor as_heads(const Tensor& rows, std::int64_t batch, std::int64_t tokens) {
    const auto split = rows.unflatten(1, {tokens, -1}).unflatten(0, {batch, -1});
    return split.permute({0, 2, 1, 3, 4}).flatten(2, 3);
}

/// a bᵀ of bf16 matrices in fp32: logits must not be rounded. As floats, since LibTorch rounds products of bf16.
Tensor precise_product(const Tensor& a, const Tensor& b) {
    const Autocast as_they_are(a.device(), false);
    const RoundedFactors factors_are_bf16;
    return torch::bmm(a.to(torch::kFloat32), b.to(torch::kFloat32).transpose(1, 2));
}

/// The columns of logits that belong to the sinks.
Tensor of_sinks(const Tensor& logits, const Tensor& sink_k) { return logits.slice(2, 0, sink_k.size(1)); }

/// softmax(q kᵀ scale) v of bf16 matrices, the queries of a group of heads below each other: every key and value is
/// used for the whole group at once, and its gradient is a sum over the group without further ado. q has the columns of
/// k, then those of constant_k, which gets no gradient.
struct AttentionByProducts : torch::autograd::Function<AttentionByProducts> {
    static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k,
                          const std::optional<Tensor>& constant_k, const Tensor& v, const std::optional<Tensor>& sink_q,
                          const std::optional<Tensor>& sink_k, double scale) {
        const auto all_k = constant_k ? torch::cat({k, *constant_k}, 2) : k;
        const variable_list inputs{q, all_k, v, sink_q.value_or(Tensor()), sink_k.value_or(Tensor())};
        const auto probabilities = softmax(inputs, scale);
        const bool keeps = k.size(1) <= longest_window / 2;
        context->save_for_backward({q, all_k, v, inputs[3], inputs[4], keeps ? probabilities : Tensor()});
        context->saved_data["scale"] = scale;
        context->saved_data["columns of k"] = k.size(2);
        return torch::bmm(probabilities, v);
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto saved = context->get_saved_variables();
        const auto& [q, all_k, v, sink_q, sink_k] = std::tie(saved[0], saved[1], saved[2], saved[3], saved[4]);
        const auto scale = context->saved_data["scale"].toDouble();
        const auto p = saved[5].defined() ? saved[5] : softmax(saved, scale);
        const auto given = gradients[0].contiguous();
        const auto v_gradient = torch::bmm(p.transpose(1, 2), given);
        const auto logits_gradient = torch::bmm(given, v.transpose(1, 2));
        causal_softmax_back(p, logits_gradient, q.size(1) / all_k.size(1), scale);
        Tensor sink_q_gradient, sink_k_gradient;
        if (sink_k.defined()) {
            const auto of_exact = of_sinks(logits_gradient, sink_k).contiguous();
            sink_q_gradient = torch::bmm(of_exact, sink_k);
            sink_k_gradient = torch::bmm(of_exact.transpose(1, 2), sink_q);
            of_sinks(logits_gradient, sink_k).zero_();
        }
        const auto learning_q = q.slice(2, 0, context->saved_data["columns of k"].toInt());
        return {torch::bmm(logits_gradient, all_k),
                torch::bmm(logits_gradient.transpose(1, 2), learning_q),
                {},
                v_gradient,
                sink_q_gradient,
                sink_k_gradient,
                {}};
    }

private:
    /// Of the inputs q, all keys, v, and queries and keys of sinks.
    static Tensor softmax(const variable_list& inputs, double scale) {
        const auto& [q, k, sink_q, sink_k] = std::tie(inputs[0], inputs[1], inputs[3], inputs[4]);
        const auto logits = precise_product(q, k);
        if (sink_k.defined()) of_sinks(logits, sink_k).copy_(precise_product(sink_q, sink_k));
        return causal_softmax(logits, q.size(1) / k.size(1), scale);
    }
};

/// Values as they count: those of the sinks in the place of others.
Tensor values_of(const AttentionInputs& in) {
    if (!in.sinks) return in.v_BTGv;
    return torch::cat({in.sinks->v, in.v_BTGv.slice(1, in.sinks->v.size(1))}, 1);
}

Tensor attend_by_products(const AttentionInputs& in, double scale) {
    const bool any_learns = std::any_of(in.parts.begin(), in.parts.end(),
                                        [](const QueriesAndKeys& part) { return part.k.requires_grad(); });
    const auto is_constant = [&](const QueriesAndKeys& part) { return any_learns && !part.k.requires_grad(); };
    std::vector<Tensor> q, constant_q, k, constant_k;
    for (const auto& part : in.parts) {
        (is_constant(part) ? constant_q : q).push_back(part.q);
        (is_constant(part) ? constant_k : k).push_back(part.k);
    }
    q.insert(q.end(), constant_q.begin(), constant_q.end());
    const auto matrices = [&](const std::vector<Tensor>& parts) { return as_matrices(parts, in.v_BTGv.size(2)); };
    std::optional<Tensor> more_k, sink_q, sink_k;
    if (!constant_k.empty()) more_k = matrices(constant_k);
    if (in.sinks) {
        sink_q = matrices({in.sinks->exact.q});
        sink_k = matrices({in.sinks->exact.k});
    }
    const auto mixed =
        AttentionByProducts::apply(matrices(q), matrices(k), more_k, matrices({values_of(in)}), sink_q, sink_k, scale);
    return as_heads(mixed, in.v_BTGv.size(0), in.v_BTGv.size(1)).flatten(2);
}

/// Queries and keys in one piece. Sinks are keys whose parts are zero, the others keys whose exact part is zero.
QueriesAndKeys in_one_piece(const AttentionInputs& in) {
    std::vector<Tensor> q_parts, k_parts;
    for (const auto& part : in.parts) {
        q_parts.push_back(part.q);
        k_parts.push_back(part.k);
    }
    auto q = torch::cat(q_parts, 3);
    auto k = torch::cat(k_parts, 3);
    if (!in.sinks) return {q, k};
    const auto& exact = in.sinks->exact;
    const auto of_sinks = torch::constant_pad_nd(exact.k, {k.size(3), 0});
    const auto of_others = torch::constant_pad_nd(k.slice(1, exact.k.size(1)), {0, exact.k.size(3)});
    return {torch::cat({q, exact.q}, 3), torch::cat({of_sinks, of_others}, 1)};
}

Tensor attend_by_libtorch(const AttentionInputs& in, double scale) {
    const auto [q_BTHd, k_BTGd] = in_one_piece(in);
    const auto v_BTGv = values_of(in);
    const auto group = q_BTHd.size(2) / k_BTGd.size(2);
    const auto q = q_BTHd.transpose(1, 2);
    const auto k = k_BTGd.transpose(1, 2).repeat_interleave(group, 1);
    auto v = v_BTGv.transpose(1, 2).repeat_interleave(group, 1);
    // In bf16, LibTorch has a fused kernel where all widths are equal, and else computes in floats: zeros are cheaper.
    const auto width = v.size(3);
    const bool rounded = q.scalar_type() == torch::kBFloat16;
    if (rounded && width < q.size(3)) v = torch::constant_pad_nd(v, {0, q.size(3) - width});
    const auto mixed_BHTv =
        at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{}, /*dropout_p=*/0.0, /*is_causal=*/true, scale);
    return mixed_BHTv.slice(3, 0, width).transpose(1, 2).flatten(2);
}

}  // namespace

Tensor causal_attention(const AttentionInputs& in, double scale) {
    const auto tokens = in.v_BTGv.size(1);
    for (const auto& part : in.parts) {
        core::invariant(part.q.size(1) == tokens && part.k.size(1) == tokens,
                        "every token has a query, a key and a value");
    }
    const auto& q = in.parts.front().q;
    const bool by_products = q.scalar_type() == torch::kBFloat16 && q.device().is_cpu() && tokens <= longest_window;
    return by_products ? attend_by_products(in, scale) : attend_by_libtorch(in, scale);
}

}  // namespace mha2mla::model
