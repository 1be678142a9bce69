#pragma once

#include <cstdint>

#include "kernels/kernels.h"

/// What kernels read of int8, int4 and coded bf16 weights, and rows of x rounded to integers. Plain data and static
/// functions, since files compiled for an instruction set include this (see cpu/vector_avx2.h).
namespace mha2mla::kernels {

/// Four inputs of an output lie side by side: they meet four codes of x that fill one 32-bit lane.
inline constexpr std::int64_t quad_inputs = 4;
inline constexpr std::int64_t group_quads = group_inputs / quad_inputs;

/// 16 outputs times 32 inputs.
struct Int8Block {
    core::f16 scales[tile_rows];
    std::int8_t codes[group_quads][tile_rows][quad_inputs];
};

/// Likewise. A byte holds the codes of input i (low half) and input i + 16 of an output.
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

/// What stands before the blocks of a tile of coded bf16 weights.
struct CodedTile {
    std::uint8_t high_bytes[16];  ///< of each code; that of code 0 is 0
    std::uint32_t first_exception;
    std::uint32_t exceptions;
    std::uint8_t unused[40];
};

inline constexpr std::int64_t coded_inputs = 8;

/// 16 outputs times 8 inputs: the low bytes of inputs 0 to 3 and 4 to 7, and codes of their high bytes in the low and
/// the high halves of bytes. Four consecutive outputs fill 16 bytes: first inputs 0 and 1 of each, then 2 and 3, so
/// that low bytes and high bytes, interleaved, are vectors of a bf16 tile.
struct CodedBlock {
    std::uint8_t codes[64];
    std::uint8_t low_bytes[2][64];
};

static_assert(sizeof(CodedTile) == 64 && sizeof(CodedBlock) == 192);

struct WeightException {
    std::uint32_t input;
    std::uint16_t output;  ///< of the tile
    core::bf16 weight;
};

static constexpr std::int64_t coded_blocks(std::int64_t inputs) { return (inputs + coded_inputs - 1) / coded_inputs; }

static constexpr std::int64_t coded_tile_bytes(std::int64_t inputs) {
    return static_cast<std::int64_t>(sizeof(CodedTile)) +
           coded_blocks(inputs) * static_cast<std::int64_t>(sizeof(CodedBlock));
}

/// A tile of a coded matrix.
struct CodedTileView {
    const CodedTile& head;
    const CodedBlock* blocks;
    const WeightException* exceptions;  ///< [head.exceptions]
};

static inline const CodedTile& coded_head(const PackedMatrix& matrix, std::int64_t tile) {
    const auto* const data = static_cast<const char*>(matrix.data);
    return *reinterpret_cast<const CodedTile*>(data + tile * coded_tile_bytes(matrix.inputs));
}

static inline CodedTileView coded_tile(const PackedMatrix& matrix, std::int64_t tile) {
    const CodedTile& head = coded_head(matrix, tile);
    const std::int64_t tiles = (matrix.outputs + tile_rows - 1) / tile_rows;
    const auto* const exceptions = reinterpret_cast<const WeightException*>(&coded_head(matrix, tiles));
    return {head, reinterpret_cast<const CodedBlock*>(&head + 1), exceptions + head.first_exception};
}

}  // namespace mha2mla::kernels
