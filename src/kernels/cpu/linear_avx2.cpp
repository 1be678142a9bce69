#include "kernels/cpu/implementations.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/vector_avx2.h"

namespace mha2mla::kernels::avx2 {
namespace {

// From here on it pays to widen a tile of bf16 weights once, instead of with every block of rows.
constexpr std::int64_t least_rows_to_widen = 9;

// Tile `tile` of bf16 weights as a tile of floats, [inputs][16].
void widen_tile(const PackedMatrix& weight, std::int64_t tile, float* out) {
    const std::int64_t pairs = (weight.inputs + 1) / 2;
    const char* words = static_cast<const char*>(weight.data) + tile * pairs * packed_step_bytes;
    for (std::int64_t pair = 0; pair < pairs; ++pair, words += packed_step_bytes, out += 2 * tile_rows) {
        for (int half = 0; half < 2; ++half) {
            const __m256i both = Avx2::load_words(words + half * 32);
            Avx2::store(out + half * Avx2::lanes, Avx2::even_bf16(both));
            Avx2::store(out + tile_rows + half * Avx2::lanes, Avx2::odd_bf16(both));
        }
    }
}

// The same product with one tile of floats for weights.
LinearParams with_tile(const LinearParams& params, std::int64_t tile, const float* weights) {
    LinearParams one = params;
    const std::int64_t output = tile * tile_rows;
    one.weight = {WeightFormat::f32, params.weight.outputs - output, params.weight.inputs, weights};
    if (one.bias != nullptr) one.bias += output;
    one.y += output;
    one.first_tile = 0;
    one.tiles = 1;
    return one;
}

void linear_widened(const LinearParams& params) {
    auto* widened = static_cast<float*>(params.scratch);
    for (std::int64_t tile = params.first_tile; tile < params.first_tile + params.tiles; ++tile) {
        widen_tile(params.weight, tile, widened);
        linear_in_floats<Avx2>(with_tile(params, tile, widened));
    }
}

}  // namespace

void linear(const LinearParams& params) {
    if (is_grouped(params.weight.format)) return linear_groups(params);
    if (params.weight.format == WeightFormat::bf16 && params.rows >= least_rows_to_widen) {
        return linear_widened(params);
    }
    linear_in_floats<Avx2>(params);
}

}  // namespace mha2mla::kernels::avx2
