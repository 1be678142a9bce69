#include "kernels/cpu/implementations.h"
#include "kernels/cpu/tiles_amx.h"

namespace mha2mla::kernels::amx {
namespace {

/// Calls multiply() for tiles of zeros, which take as many cycles as any others.
template <typename Multiply>
void multiply_zeros(std::int64_t iterations, const Multiply& multiply) {
    const Tiles tiles(whole_tiles);
    clear_sums();
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (std::int64_t i = 0; i < iterations; ++i) multiply();
}

constexpr std::int64_t products = 4;  // of an iteration, each added to sums of its own

double operations(std::int64_t iterations, std::int64_t numbers_of_row) {
    return static_cast<double>(iterations * products * 16 * 16 * numbers_of_row) * 2;
}

}  // namespace

double bf16_peak(std::int64_t iterations) {
    multiply_zeros(iterations, [] {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    });
    return operations(iterations, 32);
}

double byte_peak(std::int64_t iterations) {
    multiply_zeros(iterations, [] {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    });
    return operations(iterations, 64);
}

}  // namespace mha2mla::kernels::amx
