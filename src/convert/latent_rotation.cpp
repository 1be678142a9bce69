#include "convert/latent_rotation.h"

#include <cmath>
#include <numbers>
#include <optional>

#include "convert/factor.h"
#include "core/error.h"
#include "core/random.h"

namespace mha2mla::convert {
namespace {

using torch::Tensor;

bool is_prime(std::int64_t n) {
    for (std::int64_t divisor = 2; divisor * divisor <= n; ++divisor) {
        if (n % divisor == 0) return false;
    }
    return n > 1;
}

/// chi(i - j) modulo the odd prime q: 1 for squares, -1 for other numbers, 0 for 0. Framed by a row of 1 and a column
/// of `border`.
Tensor conference_matrix(std::int64_t q, double border) {
    auto character = torch::full({q}, -1, torch::kFloat64);
    character[0] = 0;
    for (std::int64_t i = 1; i < q; ++i) character[i * i % q] = 1;
    const auto index = torch::arange(q);
    auto matrix = torch::zeros({q + 1, q + 1}, torch::kFloat64);
    matrix[0].slice(0, 1).fill_(1);
    matrix.select(1, 0).slice(0, 1).fill_(border);
    matrix.slice(0, 1).slice(1, 1).copy_(character.index({(index.unsqueeze(1) - index).remainder(q)}));
    return matrix;
}

Tensor two_by_two(double a, double b, double c, double d) {
    return torch::tensor({a, b, c, d}, torch::kFloat64).view({2, 2});
}

/// A matrix of 1 and -1 with orthogonal rows, where one of the constructions gives it (Paley 1933).
std::optional<Tensor> hadamard(std::int64_t order) {
    const auto identity = [](std::int64_t n) { return torch::eye(n, torch::kFloat64); };
    if (order == 1) return identity(1);
    if (order % 2 != 0) return std::nullopt;
    if (const auto q = order - 1; q % 4 == 3 && is_prime(q)) return identity(order) + conference_matrix(q, -1);
    if (const auto q = order / 2 - 1; q % 4 == 1 && is_prime(q)) {
        return torch::kron(conference_matrix(q, 1), two_by_two(1, 1, 1, -1)) +
               torch::kron(identity(q + 1), two_by_two(1, -1, -1, -1));
    }
    auto half = hadamard(order / 2);
    if (half) half = torch::kron(two_by_two(1, 1, 1, -1), *half);
    return half;
}

/// DCT-II with orthonormal rows.
Tensor cosine_transform(std::int64_t size) {
    const auto index = torch::arange(size, torch::kFloat64);
    const auto n = static_cast<double>(size);
    auto rows = torch::cos(torch::outer(index, index + 0.5) * (std::numbers::pi / n)) * std::sqrt(2 / n);
    rows[0] /= std::numbers::sqrt2;
    return rows;
}

/// The largest Hadamard matrix whose order divides the size, times a cosine transform for the rest.
Tensor spreading_matrix(std::int64_t size) {
    for (std::int64_t rest = 1; rest <= size; ++rest) {
        if (size % rest != 0) continue;
        const auto matrix = hadamard(size / rest);
        if (!matrix) continue;
        const auto unit = *matrix / std::sqrt(static_cast<double>(size / rest));
        return rest == 1 ? unit : torch::kron(unit, cosine_transform(rest));
    }
    core::invariant(false, "1 divides every size");
    return {};
}

}  // namespace

Tensor latent_rotation(std::int64_t size, std::uint64_t seed) {
    core::invariant(size > 0, "a latent has channels");
    core::Random random(seed);
    auto signs = torch::empty({size}, torch::kFloat64);
    for (std::int64_t i = 0; i < size; ++i) signs[i] = random.below(2) == 0 ? 1.0 : -1.0;
    return spreading_matrix(size) * signs;
}

void rotate_latent(ConvertedAttention& converted, std::int64_t rank, std::int64_t groups, std::uint64_t seed) {
    const auto rotation = latent_rotation(rank / groups, seed);
    const auto turn_rows = [&](Tensor& down) {
        const auto turned = precise(down).clone();
        const auto latent = turned.slice(0, 0, rank);
        latent.copy_(rotation.matmul(latent.view({groups, rank / groups, -1})).view_as(latent));
        down = turned;
    };
    turn_rows(converted.tensors.at("self_attn.kv_a_proj_with_mqa.weight"));
    const auto bias = converted.tensors.find("self_attn.kv_a_proj_with_mqa.bias");
    if (bias != converted.tensors.end()) turn_rows(bias->second);
    auto& up = converted.tensors.at("self_attn.kv_b_proj.weight");
    up = precise(up).matmul(rotation.t());
}

}  // namespace mha2mla::convert
