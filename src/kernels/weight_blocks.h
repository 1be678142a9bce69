#pragma once

#include <cstdint>

#include "kernels/kernels.h"

/// What int8 and int4 kernels read: blocks of 16 outputs times 32 inputs, and rows of x rounded to integers. Plain data
/// alone, since files compiled for an instruction set include this (see cpu/vector_avx2.h).
namespace mha2mla::kernels {

/// Four inputs of an output lie side by side: they meet four codes of x that fill one 32-bit lane.
inline constexpr std::int64_t quad_inputs = 4;
inline constexpr std::int64_t group_quads = group_inputs / quad_inputs;

struct Int8Block {
    core::f16 scales[tile_rows];
    std::int8_t codes[group_quads][tile_rows][quad_inputs];
};

/// A byte holds the codes of input i (low half) and input i + 16 of an output.
struct Int4Block {
    core::f16 scales[tile_rows];
    core::f16 minima[tile_rows];
    std::uint8_t codes[group_quads / 2][tile_rows][quad_inputs];
};

static_assert(sizeof(Int8Block) == 544 && sizeof(Int4Block) == 320);

/// 32 inputs of a row of x, about scale * codes[i] each. What a row lacks to a whole group is zero.
struct InputGroup {
    std::int8_t codes[group_inputs];
    float scale;
    float sum;  ///< scale times the sum of the codes: what a minimum is multiplied by
};

static constexpr std::int64_t groups_of(std::int64_t inputs) { return (inputs + group_inputs - 1) / group_inputs; }

/// Groups of x whose largest magnitude is below this become zeros: their steps would not be normal numbers.
inline constexpr float smallest_rounded = 1e-30f;

}  // namespace mha2mla::kernels
