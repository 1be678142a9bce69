#include <cstring>

#include "core/error.h"
#include "kernels/kernels.h"

namespace mha2mla::kernels {
namespace {

// Inputs that lie side by side for one output: a pair of bf16, or one float.
std::int64_t inputs_per_word(core::DType dtype) { return dtype == core::DType::f32 ? 1 : 2; }

std::int64_t words_per_row(core::DType dtype, std::int64_t inputs) {
    return (inputs + inputs_per_word(dtype) - 1) / inputs_per_word(dtype);
}

// Where a row begins in packed storage, in elements. Its words are tile_rows words apart.
std::int64_t first_element(core::DType dtype, std::int64_t inputs, std::int64_t row) {
    const std::int64_t word = (row / tile_rows) * words_per_row(dtype, inputs) * tile_rows + row % tile_rows;
    return word * inputs_per_word(dtype);
}

constexpr std::int64_t bf16_word_stride = tile_rows * 2;

void check_dtype(core::DType dtype) {
    core::invariant(dtype == core::DType::f32 || dtype == core::DType::bf16, "packed matrices are f32 or bf16");
}

}  // namespace

std::size_t packed_bytes(core::DType dtype, std::int64_t outputs, std::int64_t inputs) {
    check_dtype(dtype);
    const std::int64_t tiles = (outputs + tile_rows - 1) / tile_rows;
    return static_cast<std::size_t>(tiles * words_per_row(dtype, inputs) * tile_rows) * 4;
}

void pack_rows(const PackParams& params) {
    check_dtype(params.dtype);
    for (std::int64_t r = 0; r < params.rows; ++r) {
        const float* source = params.source + r * params.inputs;
        const std::int64_t first = first_element(params.dtype, params.inputs, params.first_row + r);
        if (params.dtype == core::DType::f32) {
            float* row = static_cast<float*>(params.packed) + first;
            for (std::int64_t i = 0; i < params.inputs; ++i) row[i * tile_rows] = source[i];
        } else {
            core::bf16* row = static_cast<core::bf16*>(params.packed) + first;
            for (std::int64_t i = 0; i < params.inputs; ++i) {
                row[(i / 2) * bf16_word_stride + i % 2] = core::to_bf16(source[i]);
            }
        }
    }
}

void unpack_row(const PackedMatrix& matrix, std::int64_t row, float* out) {
    check_dtype(matrix.dtype);
    const std::int64_t first = first_element(matrix.dtype, matrix.inputs, row);
    if (matrix.dtype == core::DType::f32) {
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
