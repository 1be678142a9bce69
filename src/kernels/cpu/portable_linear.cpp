#include <algorithm>
#include <cmath>

#include "kernels/coded_weights.h"
#include "kernels/cpu/implementations.h"

namespace mha2mla::kernels::portable {
namespace {

using TileSums = float[tile_rows];

void add_f32(const float* x, const PackedMatrix& weight, std::int64_t tile, TileSums& sums) {
    const float* w = static_cast<const float*>(weight.data) + tile * weight.inputs * tile_rows;
    for (std::int64_t i = 0; i < weight.inputs; ++i) {
        for (std::int64_t o = 0; o < tile_rows; ++o) sums[o] += x[i] * w[i * tile_rows + o];
    }
}

void add_bf16(const float* x, const PackedMatrix& weight, std::int64_t tile, TileSums& sums) {
    const auto* w = static_cast<const core::bf16*>(weight.data) + tile * ((weight.inputs + 1) / 2) * tile_rows * 2;
    for (std::int64_t i = 0; i < weight.inputs; ++i) {
        const core::bf16* pairs = w + (i / 2) * tile_rows * 2 + i % 2;
        for (std::int64_t o = 0; o < tile_rows; ++o) sums[o] += x[i] * core::to_float(pairs[2 * o]);
    }
}

void add_coded(const float* x, const PackedMatrix& weight, std::int64_t tile, TileSums& sums) {
    const CodedTileView coded = coded_tile(weight, tile);
    for (std::int64_t i = 0; i < weight.inputs; ++i) {
        for (std::int64_t o = 0; o < tile_rows; ++o) sums[o] += x[i] * coded_weight(coded, i, o);
    }
    for (std::uint32_t e = 0; e < coded.head.exceptions; ++e) {
        const WeightException& exception = coded.exceptions[e];
        sums[exception.output] += x[exception.input] * core::to_float(exception.weight);
    }
}

InputGroup round_group(const float* x, std::int64_t count) {
    float largest = 0;
    for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[i]));
    const float steps = largest > smallest_rounded ? 127 / largest : 0;
    InputGroup group{};
    int sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        group.codes[i] = static_cast<std::int8_t>(std::nearbyint(x[i] * steps));
        sum += group.codes[i];
    }
    group.scale = largest / 127;
    group.sum = group.scale * static_cast<float>(sum);
    return group;
}

float product(const InputGroup& x, const Int8Block& block, std::int64_t o) {
    int sum = 0;
    for (std::int64_t i = 0; i < group_inputs; ++i) {
        sum += x.codes[i] * block.codes[i / quad_inputs][o][i % quad_inputs];
    }
    return x.scale * core::to_float(block.scales[o]) * static_cast<float>(sum);
}

float product(const InputGroup& x, const Int4Block& block, std::int64_t o) {
    constexpr std::int64_t half = group_inputs / 2;
    int sum = 0;
    for (std::int64_t i = 0; i < half; ++i) {
        const int byte = block.codes[i / quad_inputs][o][i % quad_inputs];
        sum += x.codes[i] * (byte & 15) + x.codes[i + half] * (byte >> 4);
    }
    return x.scale * core::to_float(block.scales[o]) * static_cast<float>(sum) +
           x.sum * core::to_float(block.minima[o]);
}

template <class Block>
void add_blocks(const float* x, const PackedMatrix& weight, std::int64_t tile, TileSums& sums) {
    const Block* blocks = static_cast<const Block*>(weight.data) + tile * groups_of(weight.inputs);
    for (std::int64_t first = 0; first < weight.inputs; first += group_inputs, ++blocks) {
        const InputGroup group = round_group(x + first, std::min(group_inputs, weight.inputs - first));
        for (std::int64_t o = 0; o < tile_rows; ++o) sums[o] += product(group, *blocks, o);
    }
}

// One output tile of one row: sums += x . W[tile].
void add_product(const float* x, const PackedMatrix& weight, std::int64_t tile, TileSums& sums) {
    switch (weight.format) {
        case WeightFormat::f32: return add_f32(x, weight, tile, sums);
        case WeightFormat::bf16: return add_bf16(x, weight, tile, sums);
        case WeightFormat::coded_bf16: return add_coded(x, weight, tile, sums);
        case WeightFormat::int8: return add_blocks<Int8Block>(x, weight, tile, sums);
        case WeightFormat::int4: return add_blocks<Int4Block>(x, weight, tile, sums);
    }
}

}  // namespace

void linear(const LinearParams& params) {
    for (std::int64_t tile = params.first_tile; tile < params.first_tile + params.tiles; ++tile) {
        const std::int64_t first = tile * tile_rows;
        for (std::int64_t row = 0; row < params.rows; ++row) {
            TileSums sums = {};
            add_product(params.x + row * params.x_stride, params.weight, tile, sums);
            float* y = params.y + row * params.y_stride + first;
            for (std::int64_t o = 0; o < tile_rows && first + o < params.weight.outputs; ++o) {
                const float bias = params.bias != nullptr ? params.bias[first + o] : 0.0f;
                y[o] = (params.accumulate ? y[o] : 0.0f) + sums[o] + bias;
            }
        }
    }
}

}  // namespace mha2mla::kernels::portable
