#include "kernels/cpu/implementations.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/round_group_avx2.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/tiles_amx.h"
#include "kernels/cpu/vector_avx512.h"

// int8 and int4 weights times x rounded to integers: a group of 32 inputs of 16 rows times those of 16 outputs in one
// instruction. Sums are exact and meet their scales in the order of the AVX-512 set, so that results are the same bits.

namespace mha2mla::kernels::amx {
namespace {

// So many rows keep vectors busy as well: half of a tile would be idle.
constexpr std::int64_t most_rows_in_vectors = 8;

/// 32 inputs of 16 rows of x: their InputGroups, parts side by side.
struct InputTile {
    std::int8_t codes[tile_rows][group_inputs];
    float scales[tile_rows];
    float sums[tile_rows];
};
static_assert(sizeof(InputTile) == tile_rows * sizeof(InputGroup));

/// A group of 32 inputs of 16 outputs, signed, as Int8Block has them.
using GroupCodes = std::int8_t[group_quads][tile_rows][quad_inputs];

constexpr TileShapes shapes = [] {
    TileShapes s;
    s.row_bytes[0] = tile_rows * 4;  // sums
    s.rows[0] = tile_rows;
    s.row_bytes[1] = group_inputs;  // x
    s.rows[1] = tile_rows;
    s.row_bytes[2] = tile_rows * quad_inputs;  // weights
    s.rows[2] = group_quads;
    return s;
}();

// x as [rows / 16, groups] tiles. What a last tile lacks in rows stays as it is: its products are dropped.
void round_rows(const LinearParams& params, InputTile* tiles) {
    const std::int64_t groups = groups_of(params.weight.inputs);
    for (std::int64_t row = 0; row < params.rows; ++row) {
        const float* x = params.x + row * params.x_stride;
        InputTile* tile = tiles + row / tile_rows * groups;
        const std::int64_t r = row % tile_rows;
        for (std::int64_t g = 0; g < groups; ++g, ++tile) {
            InputGroup group;
            round_group<0>(x + g * group_inputs, params.weight.inputs - g * group_inputs, group);
            __builtin_memcpy(tile->codes[r], group.codes, sizeof group.codes);
            tile->scales[r] = group.scale;
            tile->sums[r] = group.sum;
        }
    }
}

/// The codes of a tile's groups, `stride` bytes apart.
struct TileCodes {
    const void* first;
    std::int64_t stride;

    const void* group(std::int64_t g) const { return static_cast<const char*>(first) + g * stride; }
};

struct Int8Weights {
    using Block = Int8Block;

    static TileCodes codes(const Block* blocks, std::int64_t /*groups*/, GroupCodes* /*unpacked*/) {
        return {blocks->codes, sizeof(Block)};
    }
    static __m512 add_minimum(const Block& /*block*/, float /*x_sum*/, __m512 total) { return total; }
};

struct Int4Weights {
    using Block = Int4Block;

    static TileCodes codes(const Block* blocks, std::int64_t groups, GroupCodes* unpacked) {
        const __m512i low_half = _mm512_set1_epi8(15);
        for (std::int64_t g = 0; g < groups; ++g) {
            for (int q = 0; q < group_quads / 2; ++q) {
                const __m512i both = Avx512::load_words(blocks[g].codes[q]);
                _mm512_store_si512(unpacked[g][q], _mm512_and_si512(both, low_half));
                _mm512_store_si512(unpacked[g][q + group_quads / 2],
                                   _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half));
            }
        }
        return {unpacked, sizeof(GroupCodes)};
    }
    static __m512 add_minimum(const Block& block, float x_sum, __m512 total) {
        return Avx512::fma(Avx512::load_f16(block.minima), Avx512::set(x_sum), total);
    }
};

template <class Block>
struct TileWeights {
    const Block* blocks;  // [groups]
    TileCodes codes;      // of them
};

/// Up to 16 rows of x, from `row` on, times the 16 outputs of a tile.
template <class Weights>
void multiply_tile(const LinearParams& params, const InputTile* x, const TileWeights<typename Weights::Block>& weights,
                   std::int64_t row, std::int64_t tile) {
    alignas(64) std::int32_t sums[tile_rows][tile_rows];
    __m512 totals[tile_rows];
#pragma GCC unroll 16
    for (auto& total : totals) total = Avx512::zero();
    for (std::int64_t g = 0; g < groups_of(params.weight.inputs); ++g) {
        _tile_zero(0);
        _tile_loadd(1, x[g].codes, group_inputs);
        _tile_loadd(2, weights.codes.group(g), tile_rows * quad_inputs);
        _tile_dpbssd(0, 1, 2);
        _tile_stored(0, sums, tile_rows * 4);
        const __m512 scales = Avx512::load_f16(weights.blocks[g].scales);
#pragma GCC unroll 16
        for (int r = 0; r < tile_rows; ++r) {
            const __m512 scale = Avx512::mul(Avx512::set(x[g].scales[r]), scales);
            totals[r] = Avx512::fma(scale, _mm512_cvtepi32_ps(Avx512::load_words(sums[r])), totals[r]);
            totals[r] = Weights::add_minimum(weights.blocks[g], x[g].sums[r], totals[r]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r) {
        if (row + r < params.rows) finish_sums<Avx512>(params, row + r, tile * tile_rows, totals[r]);
    }
}

// All rows while a tile's weights are in the cache.
template <class Weights>
void multiply_all(const LinearParams& params) {
    const std::int64_t groups = groups_of(params.weight.inputs);
    auto* const x = static_cast<InputTile*>(params.scratch);
    auto* const unpacked = reinterpret_cast<GroupCodes*>(x + round_up(params.rows, tile_rows) / tile_rows * groups);
    round_rows(params, x);
    const Tiles tiles(shapes);
    for (std::int64_t tile = params.first_tile; tile < params.first_tile + params.tiles; ++tile) {
        const auto* blocks = static_cast<const typename Weights::Block*>(params.weight.data) + tile * groups;
        const TileWeights<typename Weights::Block> weights{blocks, Weights::codes(blocks, groups, unpacked)};
        before_tiles_load();
        for (std::int64_t row = 0; row < params.rows; row += tile_rows) {
            multiply_tile<Weights>(params, x + row / tile_rows * groups, weights, row, tile);
        }
    }
}

}  // namespace

void linear_groups(const LinearParams& params) {
    if (params.rows <= most_rows_in_vectors) return avx512::linear_groups(params);
    if (params.weight.format == WeightFormat::int8) return multiply_all<Int8Weights>(params);
    multiply_all<Int4Weights>(params);
}

}  // namespace mha2mla::kernels::amx
