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

/// Tile registers in use, from here to the end of a scope. Others' are lost: a kernel does not expect any.
class Tiles {
public:
    explicit Tiles(const TileShapes& shapes) { __asm__ volatile("ldtilecfg %0" ::"m"(shapes)); }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

/// Puts what was written before into memory: the compiler does not know that a tile is loaded from there.
void before_tiles_load() { __asm__ volatile("" ::: "memory"); }

}  // namespace
}  // namespace mha2mla::kernels
