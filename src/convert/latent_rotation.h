#pragma once

#include <cstdint>
#include <torch/torch.h>

#include "convert/method.h"

namespace mha2mla::convert {

/// An orthogonal matrix [size, size] that gives every output about the same share of every input: a Hadamard matrix
/// over the square root of its order, with a random sign for each input. Orders come from Sylvester's doubling and
/// Paley's two constructions; what is left of a size where none fits is the factor of a Kronecker product with a cosine
/// transform (DCT-II). fp64; the same for a seed everywhere.
torch::Tensor latent_rotation(std::int64_t size, std::uint64_t seed);

/// Turns the latent of a converted layer, each of its groups by the same rotation: the latent rows of
/// kv_a_proj_with_mqa and of its bias, and the columns of kv_b_proj back. What the layer computes does not change but
/// for rounding (docs/conversion.md).
void rotate_latent(ConvertedAttention& converted, std::int64_t rank, std::int64_t groups, std::uint64_t seed);

}  // namespace mha2mla::convert
