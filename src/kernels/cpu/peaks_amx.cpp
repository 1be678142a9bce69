#include "kernels/cpu/implementations.h"
#include "kernels/cpu/tiles_amx.h"

namespace mha2mla::kernels::amx {
namespace {

/// Multiplies tiles of zeros, which take as many cycles as any others. A tile's row holds so many numbers.
template <TileNumbers numbers>
double multiply_zeros(std::int64_t iterations, int numbers_of_row) {
    constexpr double products = 4;  // of an iteration, each added to sums of its own
    const Tiles tiles(whole_tiles);
    clear_sums();
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (std::int64_t i = 0; i < iterations; ++i) add_loaded_products<2, 2, numbers>();
    return static_cast<double>(iterations) * products * 16 * 16 * numbers_of_row * 2;
}

}  // namespace

double bf16_peak(std::int64_t iterations) { return multiply_zeros<TileNumbers::bf16>(iterations, 32); }

double byte_peak(std::int64_t iterations) { return multiply_zeros<TileNumbers::unsigned_signed>(iterations, 64); }

}  // namespace mha2mla::kernels::amx
