#pragma once

#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"
#include "kernels/weight_blocks.h"

/// Products with coded bf16 weights (kernels/coded_weights.h) over the vector operations of an instruction set. A few
/// rows multiply words right after they were put together, in registers; for more rows tiles are written out as bf16
/// words, once for all of them.
namespace mha2mla::kernels {

/// Vector `part` of the words of each pair of inputs of a block.
template <class Simd>
struct PairWords {
    static constexpr std::int64_t vector_bytes = Simd::lanes * 4;
    static constexpr int vectors = static_cast<int>(packed_step_bytes / vector_bytes);
    static constexpr int pairs = static_cast<int>(coded_inputs / 2);

    typename Simd::Words words[pairs];

    __attribute__((always_inline)) PairWords(typename Simd::Words high_bytes, const CodedBlock& block, int part) {
        const auto codes = Simd::load_words(block.codes + part * vector_bytes);
        const auto join = [&](int half, typename Simd::Words numbers) __attribute__((always_inline)) {
            const auto high = Simd::look_up(high_bytes, numbers);
            const auto low = Simd::load_words(block.low_bytes[half] + part * vector_bytes);
            words[2 * half] = Simd::interleave_first(low, high);
            words[2 * half + 1] = Simd::interleave_last(low, high);
        };
        join(0, Simd::low_halves(codes));
        join(1, Simd::high_halves(codes));
    }
};

/// y += x times the exceptions of a tile.
static inline void add_exceptions(const LinearParams& params, std::int64_t tile) {
    const CodedTileView coded = coded_tile(params.weight, tile);
    for (std::uint32_t i = 0; i < coded.head.exceptions; ++i) {
        const WeightException& exception = coded.exceptions[i];
        const float weight = core::to_float(exception.weight);
        for (std::int64_t r = 0; r < params.rows; ++r) {
            float& y = params.y[r * params.y_stride + tile * tile_rows + exception.output];
            y += params.x[r * params.x_stride + exception.input] * weight;
        }
    }
}

/// Rows of x for a policy of pairs.
struct CodedOperand {
    const char* x;
    std::int64_t row_bytes;
};

/// Words times x as floats: the product is that of floats.
template <class Simd>
struct FloatPairs {
    static constexpr std::int64_t pair_bytes = 8;
    static auto multiply(typename Simd::Vector sum, typename Simd::Words words, const char* x) {
        const auto* const pair = reinterpret_cast<const float*>(x);
        const auto with_even = Simd::fma(Simd::set(pair[0]), Simd::even_bf16(words), sum);
        return Simd::fma(Simd::set(pair[1]), Simd::odd_bf16(words), with_even);
    }
};

/// Some rows times `Tiles` tiles. `Pairs` says how words meet a pair of x, of `pair_bytes`; x reaches to the end of the
/// last block.
template <class Simd, class Pairs, int Rows, int Tiles>
void multiply_coded_tiles(const LinearParams& params, const CodedOperand& operand, std::int64_t tile) {
    constexpr int per_tile = PairWords<Simd>::vectors;
    constexpr std::int64_t block_bytes = sizeof(CodedBlock);
    const std::int64_t tile_bytes = coded_tile_bytes(params.weight.inputs);
    const char* const head = static_cast<const char*>(params.weight.data) + tile * tile_bytes;
    const char* const blocks = head + sizeof(CodedTile);

    typename Simd::Words high_bytes[Tiles];
#pragma GCC unroll 4
    for (int t = 0; t < Tiles; ++t) {
        high_bytes[t] = Simd::repeat(reinterpret_cast<const CodedTile*>(head + t * tile_bytes)->high_bytes);
    }
    typename Simd::Vector sums[Rows][Tiles * per_tile];
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < Tiles * per_tile; ++v) sums[r][v] = Simd::zero();
    }
    const auto add_block = [&](const char* block, const char* x) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int v = 0; v < Tiles * per_tile; ++v) {
            const int t = v / per_tile;
            const auto* const of_tile = reinterpret_cast<const CodedBlock*>(block + t * tile_bytes);
            const PairWords<Simd> pairs(high_bytes[t], *of_tile, v % per_tile);
#pragma GCC unroll 4
            for (int p = 0; p < PairWords<Simd>::pairs; ++p) {
#pragma GCC unroll 12
                for (int r = 0; r < Rows; ++r) {
                    const char* const pair = x + r * operand.row_bytes + p * Pairs::pair_bytes;
                    sums[r][v] = Pairs::multiply(sums[r][v], pairs.words[p], pair);
                }
            }
        }
    };
    // Behind these tiles lie those of the next group.
    constexpr std::int64_t blocks_ahead = weight_bytes_ahead / (Tiles * block_bytes);
    const std::int64_t count = coded_blocks(params.weight.inputs);
    const auto fetch_blocks = [&](std::int64_t b) __attribute__((always_inline)) {
        const char* first = blocks + (b + blocks_ahead) * block_bytes;
        if (b + blocks_ahead >= count) first += (Tiles - 1) * tile_bytes;
#pragma GCC unroll 4
        for (int t = 0; t < Tiles; ++t) fetch(first + t * tile_bytes, block_bytes);
    };
    for (std::int64_t b = 0; b < count; ++b) {
        fetch_blocks(b);
        add_block(blocks + b * block_bytes, operand.x + b * PairWords<Simd>::pairs * Pairs::pair_bytes);
    }
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < Tiles * per_tile; ++v) {
            finish_sums<Simd>(params, r, tile * tile_rows + v * Simd::lanes, sums[r][v]);
        }
    }
    for (int t = 0; t < Tiles; ++t) add_exceptions(params, tile + t);
}

template <class Simd, class Pairs, int Rows>
void multiply_coded_rows(const LinearParams& params, const CodedOperand& operand) {
    constexpr int group = tiles_at_once<Simd>(Rows);
    const std::int64_t end = params.first_tile + params.tiles;
    std::int64_t tile = params.first_tile;
    for (; tile + group <= end; tile += group) multiply_coded_tiles<Simd, Pairs, Rows, group>(params, operand, tile);
    for (; tile < end; ++tile) multiply_coded_tiles<Simd, Pairs, Rows, 1>(params, operand, tile);
}

/// All tiles of the call, for the rows that the sequence has.
template <class Simd, class Pairs, int... RowsMinusOne>
void multiply_coded(const LinearParams& params, const CodedOperand& operand,
                    std::integer_sequence<int, RowsMinusOne...> /*rows*/) {
    using Kernel = void (*)(const LinearParams&, const CodedOperand&);
    constexpr Kernel by_rows[] = {multiply_coded_rows<Simd, Pairs, RowsMinusOne + 1>...};
    by_rows[params.rows - 1](params, operand);
}

/// For up to most_rows_in_floats rows.
template <class Simd>
void linear_coded_in_floats(const LinearParams& params) {
    const std::int64_t inputs = params.weight.inputs;
    CodedOperand operand{reinterpret_cast<const char*>(params.x), params.x_stride * 4};
    if (inputs % coded_inputs != 0) {
        const std::int64_t row_bytes = coded_blocks(inputs) * coded_inputs * 4;
        auto* const copy = static_cast<char*>(params.scratch);
        __builtin_memset(copy, 0, static_cast<std::size_t>(params.rows * row_bytes));
        for (std::int64_t r = 0; r < params.rows; ++r) {
            __builtin_memcpy(copy + r * row_bytes, params.x + r * params.x_stride,
                             static_cast<std::size_t>(inputs * 4));
        }
        operand = {copy, row_bytes};
    }
    multiply_coded<Simd, FloatPairs<Simd>>(params, operand, std::make_integer_sequence<int, most_rows_in_floats>());
}

/// A tile as bf16 words, [inputs / 2][16][2], and zeros up to the end of its last block.
template <class Simd>
void write_out_tile(const PackedMatrix& weight, std::int64_t tile, char* out) {
    const CodedTileView coded = coded_tile(weight, tile);
    const auto high_bytes = Simd::repeat(coded.head.high_bytes);
    char* at = out;
    for (std::int64_t b = 0; b < coded_blocks(weight.inputs); ++b) {
        fetch(reinterpret_cast<const char*>(coded.blocks + b) + weight_bytes_ahead, sizeof(CodedBlock));
#pragma GCC unroll 2
        for (int v = 0; v < PairWords<Simd>::vectors; ++v) {
            const PairWords<Simd> pairs(high_bytes, coded.blocks[b], v);
#pragma GCC unroll 4
            for (int p = 0; p < PairWords<Simd>::pairs; ++p) {
                Simd::store_words(at + p * packed_step_bytes + v * PairWords<Simd>::vector_bytes, pairs.words[p]);
            }
        }
        at += PairWords<Simd>::pairs * packed_step_bytes;
    }
    for (std::uint32_t i = 0; i < coded.head.exceptions; ++i) {
        const WeightException& exception = coded.exceptions[i];
        char* const pair = out + exception.input / 2 * packed_step_bytes + exception.output * 4;
        __builtin_memcpy(pair + exception.input % 2 * 2, &exception.weight, sizeof exception.weight);
    }
}

/// Calls multiply(params) with bf16 weights, for all tiles or some at a time: coded tiles are written out to `memory`
/// first, of written_out_bytes(inputs). In order, since what is written behind a tile belongs to the next.
template <class Simd, class Multiply>
void with_bf16_weights(const LinearParams& params, char* memory, const Multiply& multiply) {
    if (params.weight.format == WeightFormat::bf16) return multiply(params);
    const std::int64_t tile_bytes = (params.weight.inputs + 1) / 2 * packed_step_bytes;
    const std::int64_t end = params.first_tile + params.tiles;
    for (std::int64_t tile = params.first_tile; tile < end; tile += tiles_written_out) {
        const std::int64_t tiles = tile + tiles_written_out < end ? tiles_written_out : end - tile;
        for (std::int64_t t = 0; t < tiles; ++t) write_out_tile<Simd>(params.weight, tile + t, memory + t * tile_bytes);
        multiply(with_weights(params, tile, tiles,
                              {.format = WeightFormat::bf16, .inputs = params.weight.inputs, .data = memory}));
    }
}

}  // namespace mha2mla::kernels
