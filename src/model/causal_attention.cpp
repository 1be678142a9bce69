#include <algorithm>
#include <optional>
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

/// a bᵀ of matrices of bf16 numbers in fp32: logits must not be rounded. As floats, since LibTorch rounds products of
/// bf16.
Tensor precise_product(const Tensor& a, const Tensor& b) {
    const Autocast as_they_are(a.device(), false);
    const RoundedFactors factors_are_bf16;
    return torch::mm(a.to(torch::kFloat32), b.to(torch::kFloat32).t());
}

/// Of bf16, the queries of a group of heads below each other. What there is not is empty: autograd takes no undefined
/// tensor of a list.
struct Matrices {
    Tensor q;  // the columns of k, then those of constant_k
    Tensor k;
    Tensor constant_k;  // gets no gradient
    Tensor v;
    Tensor sink_q, sink_k;

    static constexpr std::size_t count = 6;
    static Matrices of(at::TensorList list) { return {list[0], list[1], list[2], list[3], list[4], list[5]}; }
    std::vector<Tensor> list() const { return {q, k, constant_k, v, sink_q, sink_k}; }
    Tensor all_k() const { return constant_k.numel() > 0 ? torch::cat({k, constant_k}, 2) : k; }
    bool has_sinks() const { return sink_k.numel() > 0; }
    std::int64_t group() const { return q.size(1) / k.size(1); }
};

/// Queries of some tokens of a KV head, and the keys that the last of them sees: few enough that their logits stay in
/// the processor's cache, and those behind the diagonal are few.
struct Block {
    std::int64_t head;  // of batch G
    std::int64_t first_token;
    std::int64_t tokens;
    std::int64_t group;

    Tensor queries(const Tensor& rows) const { return rows[head].narrow(0, first_token * group, tokens * group); }
    Tensor keys(const Tensor& rows) const { return rows[head].slice(0, 0, first_token + tokens); }
};

std::vector<Block> blocks_of(const Matrices& in) {
    constexpr std::int64_t block_tokens = 128;
    std::vector<Block> blocks;
    for (std::int64_t head = 0; head < in.k.size(0); ++head) {
        for (std::int64_t first = 0; first < in.k.size(1); first += block_tokens) {
            blocks.push_back({head, first, std::min(block_tokens, in.k.size(1) - first), in.group()});
        }
    }
    return blocks;
}

/// softmax(q kᵀ scale) v, with sink_q sink_kᵀ for the logits of sinks, block by block: every key and value is used for
/// the whole group at once, and its gradient is a sum over the group without further ado.
struct AttentionByProducts : torch::autograd::Function<AttentionByProducts> {
    static Tensor forward(AutogradContext* context, at::TensorList arguments, double scale) {
        const auto in = Matrices::of(arguments);
        const auto precise_k = in.all_k().to(torch::kFloat32);
        auto saved = in.list();
        auto mixed = torch::empty({in.q.size(0), in.q.size(1), in.v.size(2)}, in.v.options());
        for (const Block& block : blocks_of(in)) {
            const auto p = softmax(in, precise_k, block, scale);
            auto out = block.queries(mixed);
            torch::mm_out(out, p, block.keys(in.v));
            if (in.k.size(1) <= longest_window / 2) saved.push_back(p);
        }
        context->save_for_backward(saved);
        context->saved_data["scale"] = scale;
        return mixed;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto saved = context->get_saved_variables();
        const auto in = Matrices::of(saved);
        const auto scale = context->saved_data["scale"].toDouble();
        const bool are_kept = saved.size() > Matrices::count;
        const auto all_k = in.all_k();
        const auto precise_k = are_kept ? Tensor() : all_k.to(torch::kFloat32);
        const auto given = gradients[0].contiguous();
        const auto blocks = blocks_of(in);
        Gradients back(in);
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            const auto p = are_kept ? saved[Matrices::count + i] : softmax(in, precise_k, blocks[i], scale);
            back.add(in, all_k, {blocks[i], p, blocks[i].queries(given)}, scale);
        }
        auto of_arguments = back.list();
        of_arguments.emplace_back();  // scale
        return of_arguments;
    }

private:
    /// What a block of the forward pass made, and the gradient of what came of it.
    struct BlockPass {
        Block block;
        Tensor p;
        Tensor given;
    };

    /// Those of keys and values are sums over blocks, in fp32 of products in bf16.
    struct Gradients {
        Tensor q, k, v, sink_q, sink_k;

        explicit Gradients(const Matrices& in)
            : q(torch::empty_like(in.q)),
              k(torch::zeros_like(in.k, torch::kFloat32)),
              v(torch::zeros_like(in.v, torch::kFloat32)),
              sink_q(torch::empty_like(in.sink_q)),
              sink_k(torch::zeros_like(in.sink_k, torch::kFloat32)) {}

        void add(const Matrices& in, const Tensor& all_k, const BlockPass& pass, double scale) {
            const auto& [block, p, given] = pass;
            block.keys(v).add_(torch::mm(p.t(), given));
            const auto of_logits = torch::mm(given, block.keys(in.v).t());
            causal_softmax_back(p, of_logits, {block.first_token, block.group}, scale);
            if (in.has_sinks()) {
                const auto of_sinks = sink_columns(of_logits, in).clone();
                auto of_queries = block.queries(sink_q);
                torch::mm_out(of_queries, of_sinks, block.keys(in.sink_k));
                block.keys(sink_k).add_(torch::mm(of_sinks.t(), block.queries(in.sink_q)));
                sink_columns(of_logits, in).zero_();  // q and k had no part in these
            }
            auto of_queries = block.queries(q);
            torch::mm_out(of_queries, of_logits, block.keys(all_k));
            const auto learning = block.queries(in.q).slice(1, 0, in.k.size(2));
            block.keys(k).add_(torch::mm(of_logits.t(), learning));
        }

        variable_list list() const {
            const auto rounded = [&](const Tensor& sum) { return sum.to(q.scalar_type()); };
            return {q, rounded(k), Tensor(), rounded(v), sink_q, rounded(sink_k)};
        }
    };

    static Tensor sink_columns(const Tensor& logits, const Matrices& in) {
        return logits.slice(1, 0, in.sink_k.size(1));
    }

    static Tensor softmax(const Matrices& in, const Tensor& precise_k, const Block& block, double scale) {
        const auto logits = precise_product(block.queries(in.q), block.keys(precise_k));
        if (in.has_sinks()) {
            sink_columns(logits, in).copy_(precise_product(block.queries(in.sink_q), block.keys(in.sink_k)));
        }
        return causal_softmax(logits, {block.first_token, block.group}, scale);
    }
};

/// Values as they count: those of the sinks in the place of others.
Tensor values_of(const AttentionInputs& in) {
    if (!in.sinks) return in.v_BTGv;
    return torch::cat({in.sinks->v, in.v_BTGv.slice(1, in.sinks->v.size(1))}, 1);
}

/// Keys that do not learn come last; where none does, the order is that of the parts.
Matrices matrices_of(const AttentionInputs& in) {
    const bool any_learns = std::any_of(in.parts.begin(), in.parts.end(),
                                        [](const QueriesAndKeys& part) { return part.k.requires_grad(); });
    const auto is_constant = [&](const QueriesAndKeys& part) { return any_learns && !part.k.requires_grad(); };
    std::vector<Tensor> q, constant_q, k, constant_k;
    for (const auto& part : in.parts) {
        (is_constant(part) ? constant_q : q).push_back(part.q);
        (is_constant(part) ? constant_k : k).push_back(part.k);
    }
    q.insert(q.end(), constant_q.begin(), constant_q.end());
    const auto matrix = [&](const std::vector<Tensor>& parts) {
        return parts.empty() ? in.v_BTGv.new_empty({0}) : as_matrices(parts, in.v_BTGv.size(2));
    };
    return {.q = matrix(q),
            .k = matrix(k),
            .constant_k = matrix(constant_k),
            .v = matrix({values_of(in)}),
            .sink_q = in.sinks ? matrix({in.sinks->exact.q}) : matrix({}),
            .sink_k = in.sinks ? matrix({in.sinks->exact.k}) : matrix({})};
}

Tensor attend_by_products(const AttentionInputs& in, double scale) {
    const auto arguments = matrices_of(in).list();
    const auto mixed = AttentionByProducts::apply(at::TensorList(arguments), scale);
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
    const auto sink_keys = torch::constant_pad_nd(exact.k, {k.size(3), 0});
    const auto other_keys = torch::constant_pad_nd(k.slice(1, exact.k.size(1)), {0, exact.k.size(3)});
    return {torch::cat({q, exact.q}, 3), torch::cat({sink_keys, other_keys}, 1)};
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

/// The loops trust these.
void check(const AttentionInputs& in) {
    const auto tokens = in.v_BTGv.size(1);
    for (const auto& part : in.parts) {
        core::invariant(part.q.size(1) == tokens && part.k.size(1) == tokens,
                        "every token has a query, a key and a value");
        core::invariant(part.k.scalar_type() == in.v_BTGv.scalar_type(), "keys and values are of one type");
    }
    if (!in.sinks) return;
    const auto& [exact, v] = *in.sinks;
    core::invariant(exact.q.size(1) == tokens, "every token has a query for the sinks");
    core::invariant(exact.k.size(1) == v.size(1) && v.size(1) <= tokens, "every sink has a key and a value");
}

}  // namespace

Tensor causal_attention(const AttentionInputs& in, double scale) {
    check(in);
    const auto& v = in.v_BTGv;
    const bool by_products = v.scalar_type() == torch::kBFloat16 && v.device().is_cpu() && v.size(1) <= longest_window;
    return by_products ? attend_by_products(in, scale) : attend_by_libtorch(in, scale);
}

}  // namespace mha2mla::model
