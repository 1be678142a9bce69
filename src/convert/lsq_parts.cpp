#include "convert/lsq_parts.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "core/error.h"

namespace mha2mla::convert {
namespace {

using torch::Tensor;

constexpr double rounding = 1e-14;
constexpr double eigenvalue_floor = 1e-5;  // of the largest: roots of metrics stay invertible

/// A component before it is chosen: a frequency and the complex mix of heads.
struct Candidate {
    double cost = 0;  // of losing it: what ranks candidates
    double lost = 0;  // the same in units of the output
    int pair = 0;
    Tensor mix_G;  // U / sqrt(lambda): components back to heads
    Tensor to_G;   // conj(U) sqrt(lambda)
};

/// Covariance of the complex pairs of frequency `pair`: [G, G], Hermitian.
Tensor complex_covariance(const Tensor& covariance, std::int64_t kv_heads, std::int64_t pair) {
    const auto width = covariance.size(0) / kv_heads;
    const auto heads = torch::arange(kv_heads, torch::kInt64) * width + pair;
    const auto block = [&](std::int64_t row_half, std::int64_t column_half) {
        return covariance.index_select(0, heads + row_half).index_select(1, heads + column_half);
    };
    const auto half = width / 2;
    return torch::complex(block(0, 0) + block(half, half), block(half, 0) - block(0, half));
}

void add_candidates(const RotaryProblem& problem, std::int64_t pair, std::vector<Candidate>& candidates) {
    const auto kv_heads = problem.weight_GP.size(0);
    const auto root = problem.weight_GP.select(1, pair).clamp_min(1e-30).sqrt();
    auto covariance = complex_covariance(problem.key_covariance, kv_heads, pair) * root.unsqueeze(1) * root;
    if (!problem.mix_heads) covariance = torch::diag(torch::diag(covariance));
    const auto [energies, vectors] = torch::linalg_eigh(covariance);
    const double all = energies.sum().clamp_min(1e-300).item<double>();
    for (std::int64_t i = 0; i < kv_heads; ++i) {
        const auto vector = vectors.select(1, i);
        const double energy = energies[i].item<double>();
        candidates.push_back({.cost = energy * problem.kept_loss_P[pair].item<double>(),
                              .lost = energy / all * problem.lost_P[pair].item<double>(),
                              .pair = static_cast<int>(pair),
                              .mix_G = vector / root,
                              .to_G = vector.conj() * root});
    }
}

/// Where the real and the imaginary part of a complex number stand in a vector.
using Place = std::array<std::int64_t, 2>;

/// y = z x of complex numbers, as a 2 x 2 block of a real matrix.
void set_complex(Tensor& matrix, const Place& y, const Place& x, c10::complex<double> z) {
    matrix.index_put_({y[0], x[0]}, z.real());
    matrix.index_put_({y[0], x[1]}, -z.imag());
    matrix.index_put_({y[1], x[0]}, z.imag());
    matrix.index_put_({y[1], x[1]}, z.real());
}

/// Block-diagonal [G, d, d] times a matrix of G d rows.
Tensor times_blocks(const Tensor& blocks_Gdd, const Tensor& matrix) {
    return blocks_Gdd.bmm(matrix.unflatten(0, {blocks_Gdd.size(0), blocks_Gdd.size(1)})).flatten(0, 1);
}

/// The eigenvectors of A Aᵀ with the `rank` largest energies, as columns, and the share of the others.
struct Leading {
    Tensor vectors;
    double lost = 0;
};

double share_of_others(const Tensor& ascending, std::int64_t rank) {
    const auto others = ascending.slice(0, 0, ascending.size(0) - rank);
    return (others.sum() / ascending.sum().clamp_min(1e-300)).item<double>();
}

/// Where A has more rows than columns (multi-head attention: 2 G d > E), AᵀA is the smaller: of its v with energy e, A
/// v / sqrt(e). Those without energy are zero: they add nothing to the factors.
Leading leading_of(const Tensor& a, std::int64_t rank) {
    const bool wide = a.size(0) <= a.size(1);
    const auto [energies, vectors] = torch::linalg_eigh(wide ? a.mm(a.t()) : a.t().mm(a));
    const auto kept = vectors.slice(1, vectors.size(1) - rank).flip(1);  // eigh sorts upwards
    if (wide) return {kept, share_of_others(energies, rank)};
    const auto sizes = energies.slice(0, energies.size(0) - rank).flip(0);
    const auto scale =
        torch::where(sizes > rounding * energies.max(), sizes.clamp_min(1e-300).rsqrt(), torch::zeros_like(sizes));
    return {a.mm(kept) * scale, share_of_others(energies, rank)};
}

/// Keys and values in the units of their metrics: M = [L_k^1/2 K; L_v^1/2 V].
Tensor weighted_rows(const WeightedProblem& problem) {
    return torch::cat({times_blocks(problem.key_metric.root_Gdd, problem.keys),
                       times_blocks(problem.value_metric.root_Gdd, problem.values)});
}

/// The candidates of all frequencies, those whose loss would cost most first.
std::vector<Candidate> ranked_candidates(const RotaryProblem& problem) {
    std::vector<Candidate> candidates;
    for (std::int64_t pair = 0; pair < problem.weight_GP.size(1); ++pair) add_candidates(problem, pair, candidates);
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.cost > b.cost; });
    return candidates;
}

/// Writes candidate `c` of `kept` into its rows and columns.
void place(const Candidate& candidate, std::int64_t c, RotaryComponents& kept) {
    const auto count = kept.to_key.size(0) / 2;
    const auto kv_heads = candidate.mix_G.size(0);
    const auto width = kept.to_key.size(1) / kv_heads;
    const auto group = kept.factor_HC2.size(0) / kv_heads;
    const Place component{c, c + count};
    for (std::int64_t g = 0; g < kv_heads; ++g) {
        const auto mix = candidate.mix_G[g].item<c10::complex<double>>();
        const Place key{g * width + candidate.pair, g * width + width / 2 + candidate.pair};
        set_complex(kept.to_key, component, key, candidate.to_G[g].item<c10::complex<double>>());
        set_complex(kept.from_key, key, component, mix);
        kept.factor_HC2.slice(0, g * group, (g + 1) * group).select(1, c) =
            torch::tensor({mix.real(), -mix.imag()}, torch::kFloat64);
    }
}

/// Keeps the first `count` candidates and loses the others.
RotaryComponents keep_first(const RotaryProblem& problem, const std::vector<Candidate>& candidates,
                            std::int64_t count) {
    const auto rows = problem.weight_GP.size(0) * 2 * problem.weight_GP.size(1);
    RotaryComponents kept{.pairs = {},
                          .to_key = torch::zeros({2 * count, rows}, torch::kFloat64),
                          .from_key = torch::zeros({rows, 2 * count}, torch::kFloat64),
                          .factor_HC2 = torch::zeros({problem.query_heads, count, 2}, torch::kFloat64)};
    for (std::int64_t c = 0; c < std::ssize(candidates); ++c) {
        const auto& candidate = candidates[static_cast<std::size_t>(c)];
        if (c >= count) {
            kept.lost += candidate.lost;
            continue;
        }
        kept.pairs.push_back(candidate.pair);
        place(candidate, c, kept);
    }
    return kept;
}

}  // namespace

Compensation compensate(const calibrate::PairMoments& moments, bool solve) {
    const auto& m = moments;
    auto alpha = torch::ones_like(m.aa);
    auto gamma = torch::zeros_like(m.aa);
    if (solve) {
        const auto floor = eigenvalue_floor * (m.aa + m.bb) + 1e-30;
        const auto aa = m.aa + floor;
        const auto bb = m.bb + floor;
        const auto determinant = aa * bb - m.ab * m.ab;
        alpha = (bb * m.ta - m.ab * m.tb) / determinant;
        gamma = (aa * m.tb - m.ab * m.ta) / determinant;
    }
    const auto residual = m.tt - 2 * (alpha * m.ta + gamma * m.tb) + alpha * alpha * m.aa + 2 * alpha * gamma * m.ab +
                          gamma * gamma * m.bb;
    return {.factor_HP2 = torch::stack({alpha, gamma}, 2), .residual_HP = residual.clamp_min(0)};
}

RotaryComponents choose_components(const RotaryProblem& problem, std::int64_t count) {
    const auto candidates = ranked_candidates(problem);
    core::invariant(count <= std::ssize(candidates), "a plan keeps no more components than there are");
    return keep_first(problem, candidates, count);
}

RotaryComponents components_of(const RotaryProblem& problem, const std::vector<int>& pairs) {
    auto candidates = ranked_candidates(problem);
    auto next = candidates.begin();
    for (const int pair : pairs) {
        const auto found = std::find_if(next, candidates.end(), [&](const Candidate& c) { return c.pair == pair; });
        core::invariant(found != candidates.end(), "a plan names frequencies that there are");
        std::rotate(next, found, found + 1);
        ++next;
    }
    return keep_first(problem, candidates, std::ssize(pairs));
}

Metric make_metric(const Tensor& metric_Gdd) {
    const auto [values, vectors] = torch::linalg_eigh(metric_Gdd);
    const auto floor = values.amax(-1, true) * eigenvalue_floor;
    const auto root = torch::maximum(values, floor).clamp_min(1e-300).sqrt().unsqueeze(1);
    return {(vectors * root).matmul(vectors.transpose(1, 2)), (vectors / root).matmul(vectors.transpose(1, 2))};
}

Tensor root_of(const Tensor& covariance) {
    const auto floor = covariance.diagonal().mean() * rounding;
    return torch::linalg_cholesky(covariance + torch::diag(floor.clamp_min(1e-300).expand(covariance.size(0))));
}

WeightedFactors factorize(const WeightedProblem& problem, std::int64_t rank) {
    const auto rows = weighted_rows(problem);
    const auto [leading, lost] = leading_of(rows.mm(problem.input_root), rank);
    const auto key_rows = problem.keys.size(0);
    return {.down = leading.t().mm(rows),
            .key_up = times_blocks(problem.key_metric.inverse_Gdd, leading.slice(0, 0, key_rows)),
            .value_up = times_blocks(problem.value_metric.inverse_Gdd, leading.slice(0, key_rows)),
            .lost = lost};
}

Tensor errors_by_rank(const WeightedProblem& problem, const Tensor& key_inputs, const Tensor& value_inputs) {
    const auto rows = weighted_rows(problem);
    const auto vectors = leading_of(rows.mm(problem.input_root), std::min(rows.size(0), rows.size(1))).vectors;
    const auto coordinates = vectors.t().mm(rows);
    const auto key_rows = problem.keys.size(0);
    // What direction i costs together with direction j, when neither is kept.
    const auto pair_costs = [&](const Tensor& inputs, const Tensor& side) {
        return coordinates.mm(inputs).mm(coordinates.t()) * side.t().mm(side);
    };
    const auto costs =
        pair_costs(key_inputs, vectors.slice(0, 0, key_rows)) + pair_costs(value_inputs, vectors.slice(0, key_rows));
    const auto from_the_end = costs.flip({0, 1}).cumsum(0).cumsum(1).diagonal().flip(0);
    return torch::constant_pad_nd(from_the_end.clamp_min(0), {0, 1});
}

}  // namespace mha2mla::convert
