#include <cstring>

#include "core/error.h"
#include "kernels/coded_weights.h"
#include "kernels/kernels.h"
#include "kernels/pack_groups.h"

namespace mha2mla::kernels {
namespace {

// Inputs that lie side by side for one output: a pair of bf16, or one float.
std::int64_t inputs_per_word(WeightFormat format) { return format == WeightFormat::f32 ? 1 : 2; }

std::int64_t words_per_row(WeightFormat format, std::int64_t inputs) {
    return (inputs + inputs_per_word(format) - 1) / inputs_per_word(format);
}

// Where a row begins in packed storage, in elements. Its words are tile_rows words apart.
std::int64_t first_element(WeightFormat format, std::int64_t inputs, std::int64_t row) {
    const std::int64_t word = (row / tile_rows) * words_per_row(format, inputs) * tile_rows + row % tile_rows;
    return word * inputs_per_word(format);
}

constexpr std::int64_t bf16_word_stride = tile_rows * 2;

void pack_row(const PackParams& params, std::int64_t r) {
    const float* source = params.source + r * params.inputs;
    const std::int64_t first = first_element(params.format, params.inputs, params.first_row + r);
    if (params.format == WeightFormat::f32) {
        float* row = static_cast<float*>(params.packed) + first;
        for (std::int64_t i = 0; i < params.inputs; ++i) row[i * tile_rows] = source[i];
    } else {
        core::bf16* row = static_cast<core::bf16*>(params.packed) + first;
        for (std::int64_t i = 0; i < params.inputs; ++i) {
            row[(i / 2) * bf16_word_stride + i % 2] = core::to_bf16(source[i]);
        }
    }
}

}  // namespace

std::string_view name_of(WeightFormat format) {
    switch (format) {
        case WeightFormat::f32: return "f32";
        case WeightFormat::bf16: return "bf16";
        case WeightFormat::coded_bf16: return "coded-bf16";
        case WeightFormat::int8: return "int8";
        case WeightFormat::int4: return "int4";
    }
    return "?";
}

std::size_t packed_bytes(WeightFormat format, std::int64_t outputs, std::int64_t inputs, std::int64_t exceptions) {
    const std::int64_t tiles = (outputs + tile_rows - 1) / tile_rows;
    if (format == WeightFormat::coded_bf16) return coded_bytes(tiles, inputs, exceptions);
    if (is_grouped(format)) return static_cast<std::size_t>(tiles * groups_of(inputs)) * block_bytes(format);
    return static_cast<std::size_t>(tiles * words_per_row(format, inputs) * tile_rows) * 4;
}

void pack_rows(const PackParams& params) {
    core::invariant(params.format != WeightFormat::coded_bf16, "coded weights are made from packed ones");
    if (is_grouped(params.format)) return pack_group_rows(params);
    for (std::int64_t r = 0; r < params.rows; ++r) pack_row(params, r);
}

void unpack_row(const PackedMatrix& matrix, std::int64_t row, float* out) {
    if (is_grouped(matrix.format)) return unpack_group_row(matrix, row, out);
    if (matrix.format == WeightFormat::coded_bf16) return unpack_coded_row(matrix, row, out);
    const std::int64_t first = first_element(matrix.format, matrix.inputs, row);
    if (matrix.format == WeightFormat::f32) {
        const float* packed = static_cast<const float*>(matrix.data) + first;
        for (std::int64_t i = 0; i < matrix.inputs; ++i) out[i] = packed[i * tile_rows];
    } else {
        const core::bf16* packed = static_cast<const core::bf16*>(matrix.data) + first;
        for (std::int64_t i = 0; i < matrix.inputs; ++i) {
            out[i] = core::to_float(packed[(i / 2) * bf16_word_stride + i % 2]);
        }
    }
}

}  // namespace mha2mla::kernels
