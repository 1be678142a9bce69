#pragma once

#include <utility>

#include "kernels/cpu/fetch.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/round_group_avx2.h"
#include "kernels/cpu/scratch.h"

/// int8 and int4 weights times x rounded to integers, on AVX2 and beyond: the loops. A micro-kernel
/// holds the integer sums of a few rows times the 16 outputs of a tile for one group of inputs; the group's scales then
/// turn them into floats. A `Kernel` policy has
///   most_rows      of its micro-kernels
///   flipped_bits   of every code of x: -128 makes them unsigned, 128 more each
///   multiply_tile  a micro-kernel of a constant number of rows
/// Included by *_avx2.cpp and *_avx512.cpp, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

// The codes of four inputs of a row.
int load_quad(const std::int8_t* codes) {
    int quad = 0;
    __builtin_memcpy(&quad, codes, sizeof quad);
    return quad;
}

/// Asks for the weights that lie weight_bytes_ahead behind a block. The call's first rows do it; the others find them
/// in the cache, but for those of later blocks of rows, which leave it to the processor.
template <class Block>
[[gnu::always_inline]] inline void fetch_weights(const Block* block) {
    fetch(reinterpret_cast<const char*>(block) + weight_bytes_ahead, sizeof(Block));
}

/// x in groups: [rows, stride] of which groups_of(inputs) are used.
struct RoundedRows {
    InputGroup* groups;
    std::int64_t stride;
};

template <class Kernel, int... RowsMinusOne>
void multiply_rows(const LinearParams& params, const RoundedRows& x, const LinearBlock& block,
                   std::integer_sequence<int, RowsMinusOne...>) {
    using Tile = void (*)(const LinearParams&, const RoundedRows&, std::int64_t, std::int64_t);
    constexpr Tile by_rows[] = {Kernel::template multiply_tile<RowsMinusOne + 1>...};
    for (std::int64_t tile = block.first_tile; tile < block.first_tile + block.tiles; ++tile) {
        const std::int64_t end = block.first_row + block.rows;
        for (std::int64_t row = block.first_row, rows = 0; row < end; row += rows) {
            rows = rows_of_next(end - row, Kernel::most_rows);
            by_rows[rows - 1](params, x, row, tile);
        }
    }
}

template <class Kernel>
RoundedRows round_rows(const LinearParams& params) {
    const std::int64_t inputs = params.weight.inputs;
    const std::int64_t groups = groups_of(inputs);
    const RoundedRows rounded{static_cast<InputGroup*>(params.scratch), groups};
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.x_stride;
        InputGroup* group = rounded.groups + row * groups;
        for (std::int64_t i = 0; i < inputs; i += group_inputs, ++group)
            round_group<Kernel::flipped_bits>(x + i, inputs - i, *group);
    }
    return rounded;
}

// Rows go in blocks that stay in the second-level cache; the weights of a tile stay in the first while they pass.
template <class Kernel>
void multiply_groups(const LinearParams& params) {
    constexpr std::int64_t block_bytes = 256 * 1024;
    constexpr std::int64_t most_rows = Kernel::most_rows;
    const RoundedRows x = round_rows<Kernel>(params);
    const std::int64_t row_bytes = x.stride * static_cast<std::int64_t>(sizeof(InputGroup));
    const std::int64_t fitting = block_bytes / row_bytes / most_rows * most_rows;
    const std::int64_t block_rows = fitting > 0 ? fitting : most_rows;
    for (std::int64_t row = 0; row < params.rows; row += block_rows) {
        const std::int64_t rows = row + block_rows < params.rows ? block_rows : params.rows - row;
        multiply_rows<Kernel>(params, x, {row, rows, params.first_tile, params.tiles},
                              std::make_integer_sequence<int, Kernel::most_rows>());
    }
}

}  // namespace
}  // namespace mha2mla::kernels
