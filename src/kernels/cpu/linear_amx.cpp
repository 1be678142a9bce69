#include "kernels/cpu/coded_bf16.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/rounded_rows_avx512.h"
#include "kernels/cpu/tiles_amx.h"

// bf16 weights times x rounded to bf16. A step multiplies 32 inputs of 16 rows by those of 16 outputs: 64 bytes of each
// row, and 1,024 bytes of a packed tile as they lie in memory.

namespace mha2mla::kernels::amx {
namespace {

constexpr std::int64_t step_inputs = 32;
constexpr std::int64_t pair_rows = 2 * tile_rows;  // of x, and outputs: what a micro-kernel multiplies

using Sums = float[tile_rows][tile_rows];  // [row][output]

/// A call, with its x as rounded rows.
struct Product {
    const LinearParams& params;
    const char* x;
    std::int64_t row_bytes;
    std::int64_t steps;       // whole ones, of a packed tile
    std::int64_t rest_bytes;  // behind them

    Product(const LinearParams& call, const char* rounded)
        : params(call),
          x(rounded),
          row_bytes(rounded_row_bytes(call.weight.inputs)),
          steps(call.weight.inputs / step_inputs),
          rest_bytes((call.weight.inputs % step_inputs + 1) / 2 * packed_step_bytes) {}
};

/// A packed tile: whole steps where they lie, and a last one that is filled up with zeros.
struct TileWeights {
    const char* whole;
    alignas(64) char rest[tile_bytes];
};

void read_tile(const Product& product, std::int64_t tile, TileWeights& weights) {
    const std::int64_t whole_bytes = product.steps * tile_bytes;
    weights.whole = static_cast<const char*>(product.params.weight.data) + tile * (whole_bytes + product.rest_bytes);
    __builtin_memset(weights.rest, 0, sizeof weights.rest);
    __builtin_memcpy(weights.rest, weights.whole + whole_bytes, static_cast<std::size_t>(product.rest_bytes));
}

/// Sums of twice 16 rows of x times twice 16 outputs: [rows][outputs].
void multiply(const Product& product, const char* const (&rows)[2], const TileWeights& first, const TileWeights& second,
              Sums (&sums)[2][2]) {
    clear_sums();
    TilePair x{rows[0], rows[1], product.row_bytes};
    TilePair weights{first.whole, second.whole, tile_row_bytes};
    for (std::int64_t step = 0; step < product.steps; ++step) {
        add_products(x, weights);
        x = x.ahead(tile_row_bytes);
        weights = weights.ahead(tile_bytes);
    }
    if (product.rest_bytes > 0) add_products(x, {first.rest, second.rest, tile_row_bytes});
    _tile_stored(0, sums[0][0], tile_row_bytes);
    _tile_stored(1, sums[0][1], tile_row_bytes);
    _tile_stored(2, sums[1][0], tile_row_bytes);
    _tile_stored(3, sums[1][1], tile_row_bytes);
}

void finish(const LinearParams& params, std::int64_t row, std::int64_t tile, const Sums& sums) {
    const std::int64_t rows = params.rows - row < tile_rows ? params.rows - row : tile_rows;
    for (std::int64_t r = 0; r < rows; ++r) {
        finish_sums<Avx512>(params, row + r, tile * tile_rows, Avx512::load(sums[r]));
    }
}

/// Rows times one tile or two. Where there is no second one, of rows or outputs, the first is multiplied twice.
void multiply_block(const Product& product, const LinearBlock& block) {
    TileWeights weights[2];
    for (std::int64_t t = 0; t < block.tiles; ++t) read_tile(product, block.first_tile + t, weights[t]);
    before_tiles_load();
    alignas(64) Sums sums[2][2];
    for (std::int64_t row = block.first_row; row < block.first_row + block.rows; row += pair_rows) {
        const std::int64_t second_row = row + tile_rows;
        const bool two = second_row < block.first_row + block.rows;
        const char* const x = product.x + row * product.row_bytes;
        multiply(product, {x, two ? x + tile_rows * product.row_bytes : x}, weights[0], weights[block.tiles - 1], sums);
        for (std::int64_t t = 0; t < block.tiles; ++t) {
            finish(product.params, row, block.first_tile + t, sums[0][t]);
            if (two) finish(product.params, second_row, block.first_tile + t, sums[1][t]);
        }
    }
}

/// Rows go in blocks that stay in the second-level cache (2 MB where there is AMX) while the weights pass.
void multiply_all(const Product& product) {
    constexpr std::int64_t block_bytes = 512 * 1024;
    const std::int64_t fitting = block_bytes / product.row_bytes / pair_rows * pair_rows;
    const std::int64_t block_rows = fitting > 0 ? fitting : pair_rows;
    const LinearParams& params = product.params;
    const std::int64_t end_tile = params.first_tile + params.tiles;
    for (std::int64_t row = 0; row < params.rows; row += block_rows) {
        const std::int64_t rows = row + block_rows < params.rows ? block_rows : params.rows - row;
        for (std::int64_t tile = params.first_tile; tile < end_tile; tile += 2) {
            multiply_block(product, {row, rows, tile, tile + 1 < end_tile ? 2 : 1});
        }
    }
}

}  // namespace

void linear(const LinearParams& params) {
    if (is_grouped(params.weight.format)) return linear_groups(params);
    if (params.weight.format == WeightFormat::f32 || params.rows <= most_rows_in_floats) return avx512::linear(params);
    const std::int64_t row_bytes = rounded_row_bytes(params.weight.inputs);
    auto* rounded = static_cast<char*>(params.scratch);
    round_rows(params, rounded, row_bytes);
    const Tiles tiles(whole_tiles);
    // Rows are read in whole tiles.
    char* const weights = rounded + round_up(params.rows, tile_rows) * row_bytes;
    with_bf16_weights<Avx512>(params, weights, [&](const LinearParams& part) { multiply_all({part, rounded}); });
}

}  // namespace mha2mla::kernels::amx
