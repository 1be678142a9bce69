#pragma once

#include <cstdint>
#include <immintrin.h>

/// The eight tile registers of AMX (Intel's manual, volume 1, chapter 18): each holds up to 16 rows of 64 bytes.
/// Included by *_amx.cpp alone, and of internal linkage, as vector_avx2.h says. The instructions take their tiles as
/// literals.
namespace mha2mla::kernels {
namespace {

/// How LDTILECFG wants it.
struct alignas(64) TileShapes {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

/// Tiles are 16 rows of 64 bytes: 32 bf16 or 16 pairs of them, 64 bytes or 16 quads of them, 16 floats or whole
/// numbers.
inline constexpr std::int64_t tile_row_bytes = 64;
inline constexpr std::int64_t tile_bytes = 16 * tile_row_bytes;

constexpr TileShapes whole_tiles = [] {
    TileShapes shapes;
    for (int tile = 0; tile < 8; ++tile) {
        shapes.row_bytes[tile] = tile_row_bytes;
        shapes.rows[tile] = 16;
    }
    return shapes;
}();

/// Tile registers in use, from here to the end of a scope. Others' are lost: a kernel does not expect any.
class Tiles {
public:
    explicit Tiles(const TileShapes& shapes) { __asm__ volatile("ldtilecfg %0" ::"m"(shapes)); }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

/// Puts what was written before into memory: the compiler does not know that a tile is loaded from there.
inline void before_tiles_load() { __asm__ volatile("" ::: "memory"); }

/// Two tiles as they lie in memory, their rows `stride` bytes apart.
struct TilePair {
    const char* first;
    const char* second;
    std::int64_t stride;

    TilePair ahead(std::int64_t bytes) const { return {first + bytes, second + bytes, stride}; }
};

/// What tiles hold, and how they are multiplied.
enum class TileNumbers {
    bf16,             ///< pairs of bf16
    unsigned_signed,  ///< quads of bytes, the rows' unsigned, the others signed
    all_unsigned,     ///< quads of unsigned bytes
};

/// Adds products of tiles 4 and 5, rows, with tiles 6 and 7, columns, to tiles 0 to 3.
template <int RowTiles = 2, int ColumnTiles = 2, TileNumbers numbers = TileNumbers::bf16>
__attribute__((always_inline)) inline void add_loaded_products() {
    if constexpr (numbers == TileNumbers::bf16) {
        _tile_dpbf16ps(0, 4, 6);
        if (ColumnTiles == 2) _tile_dpbf16ps(1, 4, 7);
        if (RowTiles == 2) _tile_dpbf16ps(2, 5, 6);
        if (RowTiles == 2 && ColumnTiles == 2) _tile_dpbf16ps(3, 5, 7);
    } else if constexpr (numbers == TileNumbers::unsigned_signed) {
        _tile_dpbusd(0, 4, 6);
        if (ColumnTiles == 2) _tile_dpbusd(1, 4, 7);
        if (RowTiles == 2) _tile_dpbusd(2, 5, 6);
        if (RowTiles == 2 && ColumnTiles == 2) _tile_dpbusd(3, 5, 7);
    } else {
        _tile_dpbuud(0, 4, 6);
        if (ColumnTiles == 2) _tile_dpbuud(1, 4, 7);
        if (RowTiles == 2) _tile_dpbuud(2, 5, 6);
        if (RowTiles == 2 && ColumnTiles == 2) _tile_dpbuud(3, 5, 7);
    }
}

/// Adds products to tiles 0 to 3, whole ones: [rows.first | rows.second] times [columns.first | columns.second]. Rows
/// are [16][32 bf16 or 64 bytes], columns [16 pairs or quads][16 columns][2 or 4]. Where there is one tile of either,
/// the second is not read, and its sums stay.
template <int RowTiles = 2, int ColumnTiles = 2, TileNumbers numbers = TileNumbers::bf16>
__attribute__((always_inline)) inline void add_products(const TilePair& rows, const TilePair& columns) {
    _tile_loadd(4, rows.first, rows.stride);
    if (RowTiles == 2) _tile_loadd(5, rows.second, rows.stride);
    _tile_loadd(6, columns.first, columns.stride);
    if (ColumnTiles == 2) _tile_loadd(7, columns.second, columns.stride);
    add_loaded_products<RowTiles, ColumnTiles, numbers>();
}

__attribute__((always_inline)) inline void clear_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

}  // namespace
}  // namespace mha2mla::kernels
