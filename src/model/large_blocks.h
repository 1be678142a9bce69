#pragma once

#include <cstddef>

namespace mha2mla::model {

/// Blocks from here on come from the system on their own.
inline constexpr std::size_t least_large_block_bytes = std::size_t{32} << 20;

/// From now on LibTorch's large blocks on the CPU are used again for others of about their size: training asks for the
/// same every step (gradients of the embedding, above all), and the system would clear each page anew. When none that
/// is free fits, all that are free go back to the system. In malloc's heap, which keeps them as well, smaller blocks
/// settle in their place, and with windows of many lengths the process grows.
void keep_large_blocks();

}  // namespace mha2mla::model
