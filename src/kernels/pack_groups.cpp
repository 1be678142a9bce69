#include "kernels/pack_groups.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "core/error.h"

namespace mha2mla::kernels {
namespace {

constexpr float largest_f16 = 65504;

core::f16 bounded_f16(float x) { return core::to_f16(std::clamp(x, -largest_f16, largest_f16)); }

// The nearest whole number, ties to even, of one far below 2^22: no call, so that loops over it become vectors.
float nearest(float x) {
    constexpr float whole = 0x1.8p23f;  // here floats are whole numbers
    return x + whole - whole;
}

float inverse_or_zero(float step) { return step == 0 ? 0 : 1 / step; }

/// The block of a row's group, and the row's place in it.
template <class Block>
struct Place {
    Block& block;
    std::int64_t output;
};

template <class Block>
Place<Block> place_of(void* packed, std::int64_t inputs, std::int64_t row, std::int64_t group) {
    return {static_cast<Block*>(packed)[row / tile_rows * groups_of(inputs) + group], row % tile_rows};
}

constexpr std::int64_t half_group = group_inputs / 2;

void set_group(const core::CodeGroup& group, const Place<Int4Block>& place) {
    place.block.scales[place.output] = group.scale;
    place.block.minima[place.output] = group.minimum;
    for (std::int64_t quad = 0; quad < group_quads / 2; ++quad) {
        std::memcpy(place.block.codes[quad][place.output], group.codes.data() + quad * quad_inputs, quad_inputs);
    }
}

int code_of(const Int4Block& block, std::int64_t output, std::int64_t input) {
    const int byte = block.codes[input % half_group / quad_inputs][output][input % quad_inputs];
    return byte >> (input / half_group * 4) & 15;
}

void pack_group(std::span<const float> weights, const Place<Int8Block>& place) {
    float largest = 0;
    for (const float weight : weights) largest = std::max(largest, std::abs(weight));
    const core::f16 scale = bounded_f16(largest / 127);
    const float steps = inverse_or_zero(core::to_float(scale));
    place.block.scales[place.output] = scale;
    std::array<std::int8_t, group_inputs> codes{};
    for (std::size_t i = 0; i < weights.size(); ++i) {
        codes[i] = static_cast<std::int8_t>(nearest(std::clamp(weights[i] * steps, -127.0f, 127.0f)));
    }
    for (std::int64_t quad = 0; quad < group_quads; ++quad) {
        std::memcpy(place.block.codes[quad][place.output], codes.data() + quad * quad_inputs, quad_inputs);
    }
}

void pack_group(std::span<const float> weights, const Place<Int4Block>& place) {
    const auto [low, high] = std::minmax_element(weights.begin(), weights.end());
    core::CodeGroup group{.scale = {}, .minimum = bounded_f16(*low), .codes = {}};
    const float origin = core::to_float(group.minimum);
    group.scale = bounded_f16((*high - origin) / 15);
    const float steps = inverse_or_zero(core::to_float(group.scale));
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const auto code = static_cast<int>(nearest(std::clamp((weights[i] - origin) * steps, 0.0f, 15.0f)));
        std::uint8_t& byte = group.codes[i % half_group];
        byte = static_cast<std::uint8_t>(byte | code << (i / half_group * 4));
    }
    set_group(group, place);
}

template <class Block>
void pack_blocks(const PackParams& params) {
    for (std::int64_t r = 0; r < params.rows; ++r) {
        const float* const row = params.source + r * params.inputs;
        for (std::int64_t g = 0; g < groups_of(params.inputs); ++g) {
            const std::int64_t count = std::min(group_inputs, params.inputs - g * group_inputs);
            pack_group({row + g * group_inputs, static_cast<std::size_t>(count)},
                       place_of<Block>(params.packed, params.inputs, params.first_row + r, g));
        }
    }
}

float weight_of(const Int8Block& block, std::int64_t output, std::int64_t input) {
    const int code = block.codes[input / quad_inputs][output][input % quad_inputs];
    return core::to_float(block.scales[output]) * static_cast<float>(code);
}

float weight_of(const Int4Block& block, std::int64_t output, std::int64_t input) {
    const auto code = static_cast<float>(code_of(block, output, input));
    return core::to_float(block.scales[output]) * code + core::to_float(block.minima[output]);
}

template <class Block>
void unpack_blocks(const PackedMatrix& matrix, std::int64_t row, float* out) {
    const Block* const blocks = static_cast<const Block*>(matrix.data) + row / tile_rows * groups_of(matrix.inputs);
    for (std::int64_t i = 0; i < matrix.inputs; ++i) {
        out[i] = weight_of(blocks[i / group_inputs], row % tile_rows, i % group_inputs);
    }
}

}  // namespace

std::size_t block_bytes(WeightFormat format) {
    return format == WeightFormat::int8 ? sizeof(Int8Block) : sizeof(Int4Block);
}

void pack_group_rows(const PackParams& params) {
    if (params.format == WeightFormat::int8) return pack_blocks<Int8Block>(params);
    pack_blocks<Int4Block>(params);
}

void pack_codes(const PackCodesParams& params) {
    core::invariant(params.inputs % group_inputs == 0, "rows of codes consist of whole groups");
    const core::CodeGroup* group = params.source;
    for (std::int64_t r = 0; r < params.rows; ++r) {
        for (std::int64_t g = 0; g < groups_of(params.inputs); ++g, ++group) {
            set_group(*group, place_of<Int4Block>(params.packed, params.inputs, params.first_row + r, g));
        }
    }
}

void unpack_group_row(const PackedMatrix& matrix, std::int64_t row, float* out) {
    if (matrix.format == WeightFormat::int8) return unpack_blocks<Int8Block>(matrix, row, out);
    unpack_blocks<Int4Block>(matrix, row, out);
}

}  // namespace mha2mla::kernels
