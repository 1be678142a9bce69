#include "convert/transmla_parts.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace mha2mla::convert {
namespace {

using torch::Tensor;

/// Where the real parts of a block's pairs stand in the keys: head by head, m frequencies each. [G m]
Tensor real_parts(const FoldShape& shape, std::int64_t width, std::int64_t block) {
    const auto heads = torch::arange(shape.kv_heads, torch::kInt64) * width;
    const auto pairs = torch::arange(shape.freqfold, torch::kInt64) + block * shape.freqfold;
    return (heads.unsqueeze(1) + pairs).flatten();
}

/// Principal axes of a block, strongest first, as rows: [G m, G m].
Tensor principal_axes(const Tensor& key_moment, const Tensor& real, std::int64_t half) {
    const auto part = [&](const Tensor& rows) { return key_moment.index_select(0, rows).index_select(1, rows); };
    const auto vectors = std::get<1>(torch::linalg_eigh(part(real) + part(real + half)));
    return vectors.flip(1).t();
}

/// The axes as rows over all keys: real parts, or with `real` moved by half a head imaginary parts.
Tensor spread(const Tensor& axes, const Tensor& columns, std::int64_t keys) {
    return torch::zeros({axes.size(0), keys}, torch::kFloat64).index_copy_(1, columns, axes);
}

}  // namespace

Tensor second_moment(const Activation& activation, const InputStatistics& input) {
    const auto mean = activation.weight.mv(input.mean) + activation.bias;
    return activation.weight.mm(input.covariance).mm(activation.weight.t()) + torch::outer(mean, mean);
}

int frequency_step(int pairs, int components) { return std::max(1, pairs / components); }

std::vector<int> folded_pairs(int pairs, int components) {
    const int step = frequency_step(pairs, components);
    std::vector<int> result;
    for (int c = 0; c < components; ++c) result.push_back(c * step % pairs);
    return result;
}

KeyRotation rotate_keys(const Tensor& key_moment, const FoldShape& shape) {
    const auto keys = key_moment.size(0);
    const auto width = keys / shape.kv_heads;
    const auto pairs = width / 2;
    const auto step = frequency_step(static_cast<int>(pairs), static_cast<int>(shape.components));
    const auto frequencies = pairs / step;                        // that components turn by
    const auto per_turn = shape.freqfold / step;                  // of them in a block
    const auto kept = per_turn * shape.components / frequencies;  // components of a block
    auto rotary = torch::zeros({2, shape.components, keys}, torch::kFloat64);
    std::vector<Tensor> still;
    for (std::int64_t block = 0; block < pairs / shape.freqfold; ++block) {
        const auto real = real_parts(shape, width, block);
        const auto axes = principal_axes(key_moment, real, pairs);
        const auto rank = torch::arange(kept, torch::kInt64);
        const auto places = torch::div(rank, per_turn, "floor") * frequencies + block * per_turn + rank % per_turn;
        for (const std::int64_t part : {0, 1}) {
            const auto rows = spread(axes, real + part * pairs, keys);
            rotary.select(0, part).index_copy_(0, places, rows.slice(0, 0, kept));
            still.push_back(rows.slice(0, kept));
        }
    }
    return {.rotary = rotary.flatten(0, 1), .still = torch::cat(still)};
}

BalancedFactors balance_and_factorize(const BalancedProblem& problem, std::int64_t rank) {
    const auto keys = problem.keys.weight.size(0);
    const Activation both{torch::cat({problem.keys.weight, problem.values.weight}),
                          torch::cat({problem.keys.bias, problem.values.bias})};
    const auto moment = second_moment(both, problem.input);
    core::invariant(rank <= moment.size(0), "a latent is no wider than keys and values");
    const auto norms = torch::diag(moment).clamp_min(0).sqrt();
    const auto key_norms = norms.slice(0, 0, keys);
    const auto value_norms = norms.slice(0, keys + problem.unweighed_values);
    double ratio = 1;
    if (key_norms.numel() > 0 && value_norms.numel() > 0) {
        ratio = key_norms.mean().item<double>() / (value_norms.mean().item<double>() * problem.balance);
    }
    if (!(ratio > 0 && std::isfinite(ratio))) ratio = 1;  // no keys or no values to speak of
    auto scale = torch::ones_like(norms);
    scale.slice(0, 0, keys).fill_(1 / ratio);
    const auto vectors = std::get<1>(torch::linalg_eigh(moment * scale * scale.unsqueeze(1)));
    const auto leading = vectors.slice(1, vectors.size(1) - rank).flip(1);  // eigh sorts upwards
    const auto down = (leading * scale.unsqueeze(1)).t();
    return {.down = down.mm(both.weight),
            .bias = down.mv(both.bias),
            .key_up = leading.slice(0, 0, keys) * ratio,
            .value_up = leading.slice(0, keys),
            .ratio = ratio};
}

}  // namespace mha2mla::convert
