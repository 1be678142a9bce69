#include "kernels/cpu/coded_bf16.h"
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

void linear_widened(const LinearParams& params, float* widened) {
    for (std::int64_t tile = params.first_tile; tile < params.first_tile + params.tiles; ++tile) {
        widen_tile(params.weight, tile, widened);
        linear_in_floats<Avx2>(with_weights(
            params, tile, 1, {.format = WeightFormat::f32, .inputs = params.weight.inputs, .data = widened}));
    }
}

}  // namespace

void linear(const LinearParams& params) {
    const WeightFormat format = params.weight.format;
    if (is_grouped(format)) return linear_groups(params);
    if (format == WeightFormat::f32) return linear_in_floats<Avx2>(params);
    if (format == WeightFormat::coded_bf16 && params.rows <= most_rows_in_floats) {
        return linear_coded_in_floats<Avx2>(params);
    }
    auto* const words = static_cast<char*>(params.scratch);
    auto* const widened = reinterpret_cast<float*>(words + written_out_bytes(params.weight.inputs));
    with_bf16_weights<Avx2>(params, words, [&](const LinearParams& part) {
        if (part.rows < least_rows_to_widen) return linear_in_floats<Avx2>(part);
        linear_widened(part, widened);
    });
}

}  // namespace mha2mla::kernels::avx2
