#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cpu/fetch.h"
#include "kernels/kernels.h"

/// Products with packed matrices over the vector operations of an instruction set. A micro-kernel holds the sums of a
/// few rows times a few tiles in registers. It goes through the weights in steps of one packed vector a tile (64
/// bytes); a `Weights` policy says what a step multiplies:
///   x_step_bytes     bytes of a row of x that a step consumes
///   parts            a step's products, one after the other: a last step that is not whole has the first alone
///   weights<part>    what one vector of sums is multiplied by, from where it lies in memory
///   factor<part>     x of a row in every lane
///   multiply         sums of one row plus a product
/// Instances have internal linkage, since `Simd` and `Weights` have.
namespace mha2mla::kernels {

inline constexpr std::int64_t packed_step_bytes = 64;

/// x as a policy wants it: rows of floats, or of bf16 pairs.
struct LinearOperand {
    const char* x;
    std::int64_t row_bytes;
    std::int64_t steps;  // whole ones
    bool odd_input;      // a last step of one input follows
};

/// Tiles that a micro-kernel of `rows` rows can hold.
template <class Simd>
constexpr int tiles_at_once(int rows) {
    const int per_tile = rows * (static_cast<int>(tile_rows) / Simd::lanes);
    return Simd::accumulators >= 4 * per_tile ? 4 : Simd::accumulators >= 2 * per_tile ? 2 : 1;
}

template <class Simd>
constexpr int max_rows() {
    return Simd::accumulators * Simd::lanes / (static_cast<int>(tile_rows) * Simd::tiles_of_many_rows);
}

/// y = or += one vector of sums, with the bias.
template <class Simd>
void finish_sums(const LinearParams& params, std::int64_t row, std::int64_t output, typename Simd::Vector sums) {
    const std::int64_t count = params.weight.outputs - output;
    if (count <= 0) return;
    float* y = params.y + row * params.y_stride + output;
    if (params.bias != nullptr) sums = Simd::add(sums, Simd::load_first(params.bias + output, count));
    if (params.accumulate) sums = Simd::add(sums, Simd::load_first(y, count));
    Simd::store_first(y, count, sums);
}

template <class Simd, class Weights, int Rows, int Tiles>
void multiply_tiles(const LinearParams& params, const LinearOperand& operand, std::int64_t row, std::int64_t tile) {
    constexpr int per_tile = static_cast<int>(tile_rows) / Simd::lanes;
    constexpr int vectors = Tiles * per_tile;
    constexpr std::int64_t vector_bytes = packed_step_bytes / per_tile;
    const std::int64_t tile_bytes = (operand.steps + (operand.odd_input ? 1 : 0)) * packed_step_bytes;
    const char* weights = static_cast<const char*>(params.weight.data) + tile * tile_bytes;
    const char* x = operand.x + row * operand.row_bytes;

    typename Simd::Vector sums[Rows][vectors];
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sums[r][v] = Simd::zero();
    }
    // Part by part, so that only one part's weights take registers.
    const auto add_part = [&](std::int64_t s, auto part) __attribute__((always_inline)) {
        decltype(Weights::template weights<part()>(weights)) w[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            const std::int64_t at = (v / per_tile) * tile_bytes + (v % per_tile) * vector_bytes;
            w[v] = Weights::template weights<part()>(weights + s * packed_step_bytes + at);
        }
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) {
            const auto factor = Weights::template factor<part()>(x + r * operand.row_bytes + s * Weights::x_step_bytes);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) sums[r][v] = Weights::multiply(sums[r][v], factor, w[v]);
        }
    };
    constexpr std::integral_constant<int, 0> first_part;
    constexpr std::integral_constant<int, Weights::parts - 1> last_part;
    // The call's first rows ask for weights ahead. Behind these tiles lie those of the next group, if it is as large.
    constexpr std::int64_t steps_ahead = weight_bytes_ahead / (Tiles * packed_step_bytes);
    const auto fetch_weights = [&](std::int64_t s) __attribute__((always_inline)) {
        const std::int64_t at = s + steps_ahead;
        const char* first = weights + at * packed_step_bytes;
        if (at >= operand.steps) first += Tiles * tile_bytes - operand.steps * packed_step_bytes;
#pragma GCC unroll 4
        for (int t = 0; t < Tiles; ++t) fetch(first + t * tile_bytes, packed_step_bytes);
    };
    for (std::int64_t s = 0; s < operand.steps; ++s) {
        if (row == 0) fetch_weights(s);
        add_part(s, first_part);
        if constexpr (Weights::parts > 1) add_part(s, last_part);
    }
    if (operand.odd_input) add_part(operand.steps, first_part);

    // A copy: an array that is indexed at run time would live in memory throughout.
    typename Simd::Vector finished[Rows][vectors];
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) finished[r][v] = sums[r][v];
    }
    for (int r = 0; r < Rows; ++r) {
        for (int v = 0; v < vectors; ++v) {
            finish_sums<Simd>(params, row + r, tile * tile_rows + v * Simd::lanes, finished[r][v]);
        }
    }
}

/// How many of `left` rows a micro-kernel of up to `most` takes: the last two share what is left, since few rows alone
/// are slow.
static constexpr std::int64_t rows_of_next(std::int64_t left, std::int64_t most) {
    if (left >= 2 * most) return most;
    return left > most ? (left + 1) / 2 : left;
}

/// A range of rows times a group of tiles.
struct LinearBlock {
    std::int64_t first_row;
    std::int64_t rows;
    std::int64_t first_tile;
    std::int64_t tiles;
};

template <class Simd, class Weights, int Rows>
void multiply_rows(const LinearParams& params, const LinearOperand& operand, const LinearBlock& block) {
    constexpr int group = tiles_at_once<Simd>(Rows);
    std::int64_t tile = block.first_tile;
    const std::int64_t end = block.first_tile + block.tiles;
    for (; tile + group <= end; tile += group) {
        multiply_tiles<Simd, Weights, Rows, group>(params, operand, block.first_row, tile);
    }
    for (; tile < end; ++tile) multiply_tiles<Simd, Weights, Rows, 1>(params, operand, block.first_row, tile);
}

template <class Simd, class Weights, int... RowsMinusOne>
void multiply_block(const LinearParams& params, const LinearOperand& operand, const LinearBlock& block,
                    std::integer_sequence<int, RowsMinusOne...>) {
    using Kernel = void (*)(const LinearParams&, const LinearOperand&, const LinearBlock&);
    constexpr Kernel by_rows[] = {multiply_rows<Simd, Weights, RowsMinusOne + 1>...};
    by_rows[block.rows - 1](params, operand, block);
}

/// The same product with `tiles` tiles of other weights, that stand for those from `tile` on.
static inline LinearParams with_weights(const LinearParams& params, std::int64_t tile, std::int64_t tiles,
                                        PackedMatrix weights) {
    LinearParams part = params;
    const std::int64_t output = tile * tile_rows;
    part.weight = weights;
    part.weight.outputs = params.weight.outputs - output;
    if (part.bias != nullptr) part.bias += output;
    part.y += output;
    part.first_tile = 0;
    part.tiles = tiles;
    return part;
}

/// All rows times all tiles of the call. Rows go in blocks that stay in the second-level cache; the weights of a group
/// of tiles stay in the first while the block's rows pass.
template <class Simd, class Weights>
void multiply_all(const LinearParams& params, const LinearOperand& operand) {
    constexpr std::int64_t block_bytes = 256 * 1024;
    constexpr int most_rows = max_rows<Simd>();
    constexpr int tile_group = tiles_at_once<Simd>(most_rows);
    const std::int64_t groups_in_block = block_bytes / (operand.row_bytes * most_rows);
    const std::int64_t block_rows = most_rows * (groups_in_block > 0 ? groups_in_block : 1);
    const std::int64_t end = params.first_tile + params.tiles;
    for (std::int64_t block = 0; block < params.rows; block += block_rows) {
        const std::int64_t block_end = block + block_rows < params.rows ? block + block_rows : params.rows;
        // Few rows take all tiles in one go: the weights are one stream.
        const std::int64_t step = params.rows <= most_rows ? params.tiles : tile_group;
        for (std::int64_t tile = params.first_tile; tile < end; tile += step) {
            const std::int64_t tiles = tile + step < end ? step : end - tile;
            for (std::int64_t row = block, rows = 0; row < block_end; row += rows) {
                rows = rows_of_next(block_end - row, most_rows);
                multiply_block<Simd, Weights>(params, operand, {row, rows, tile, tiles},
                                              std::make_integer_sequence<int, most_rows>());
            }
        }
    }
}

/// Packed float weights.
template <class Simd>
struct F32Weights {
    static constexpr std::int64_t x_step_bytes = 4;
    static constexpr int parts = 1;
    template <int>
    static auto weights(const char* p) {
        return Simd::load(reinterpret_cast<const float*>(p));
    }
    template <int>
    static auto factor(const char* x) {
        return Simd::set(*reinterpret_cast<const float*>(x));
    }
    static auto multiply(typename Simd::Vector sum, typename Simd::Vector x, typename Simd::Vector w) {
        return Simd::fma(x, w, sum);
    }
};

/// Packed bf16 weights, widened: the product is that of floats.
template <class Simd>
struct WidenedWeights : F32Weights<Simd> {
    static constexpr std::int64_t x_step_bytes = 8;
    static constexpr int parts = 2;
    template <int part>
    static auto weights(const char* p) {
        const auto words = Simd::load_words(p);
        return part == 0 ? Simd::even_bf16(words) : Simd::odd_bf16(words);
    }
    template <int part>
    static auto factor(const char* x) {
        return Simd::set(reinterpret_cast<const float*>(x)[part]);
    }
};

template <class Simd>
void linear_in_floats(const LinearParams& params) {
    const std::int64_t inputs = params.weight.inputs;
    const LinearOperand operand{reinterpret_cast<const char*>(params.x), params.x_stride * 4, inputs, false};
    if (params.weight.format == WeightFormat::f32) {
        multiply_all<Simd, F32Weights<Simd>>(params, operand);
    } else {
        multiply_all<Simd, WidenedWeights<Simd>>(params, {operand.x, operand.row_bytes, inputs / 2, inputs % 2 != 0});
    }
}

}  // namespace mha2mla::kernels
