#include "runtime/matrix.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "kernels/coded_weights.h"

namespace mha2mla::runtime {
namespace {

constexpr std::size_t arena_bytes = std::size_t{64} << 20;
constexpr std::size_t alignment = 64;
/// With more exceptions, coded weights would take longer than the bf16 numbers themselves.
constexpr std::int64_t least_weights_per_exception = 256;

/// Of all tiles of a bf16 matrix.
std::vector<kernels::CodedTile> choose_codes(const kernels::PackedMatrix& weights, core::ThreadPool& pool) {
    std::vector<kernels::CodedTile> heads(static_cast<std::size_t>(weights.tiles()));
    pool.parallel_for(weights.tiles(), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
            heads[static_cast<std::size_t>(t)] = kernels::choose_codes(weights, t);
        }
    });
    return heads;
}

}  // namespace

std::byte* WeightMemory::take(std::size_t bytes) {
    const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
    if (arenas_.empty() || used_ + whole > arenas_.back().size()) {
        arenas_.emplace_back(std::max(whole, arena_bytes), pages_);
        used_ = 0;
    }
    std::byte* const piece = arenas_.back().data() + used_;
    used_ += whole;
    taken_ += whole;
    return piece;
}

Matrix::Matrix(WeightMemory& memory, kernels::WeightFormat format, std::int64_t outputs, std::int64_t inputs)
    : packed_{.format = format, .outputs = outputs, .inputs = inputs} {
    data_ = memory.take(bytes());
    packed_.data = data_;
}

Matrix Matrix::coded(WeightMemory& memory, const Matrix& weights, core::ThreadPool& pool) {
    const kernels::PackedMatrix& packed = weights.packed();
    auto heads = choose_codes(packed, pool);
    const std::int64_t exceptions = kernels::number_exceptions(heads);
    Matrix matrix;
    matrix.packed_ = packed;
    if (exceptions * least_weights_per_exception <= packed.outputs * packed.inputs) {
        matrix.packed_.format = kernels::WeightFormat::coded_bf16;
        matrix.packed_.exceptions = exceptions;
    }
    matrix.data_ = memory.take(matrix.bytes());
    matrix.packed_.data = matrix.data_;
    if (matrix.packed_.format == packed.format) {
        std::memcpy(matrix.data_, packed.data, matrix.bytes());
        return matrix;
    }
    pool.parallel_for(packed.tiles(), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
            kernels::code_tile({packed, t, heads[static_cast<std::size_t>(t)], matrix.data_});
        }
    });
    return matrix;
}

void Matrix::check_rows(std::int64_t first_row, std::int64_t rows) const {
    core::invariant(data_ != nullptr, "a matrix that was packed already is not written");
    core::invariant(first_row >= 0 && first_row + rows <= outputs(), "packed rows lie inside the matrix");
}

void Matrix::set_rows(std::int64_t first_row, std::int64_t rows, const float* source) const {
    check_rows(first_row, rows);
    kernels::pack_rows({.source = source,
                        .first_row = first_row,
                        .rows = rows,
                        .format = packed_.format,
                        .inputs = packed_.inputs,
                        .packed = data_});
}

void Matrix::set_codes(std::int64_t first_row, std::int64_t rows, const core::CodeGroup* source) const {
    check_rows(first_row, rows);
    core::invariant(packed_.format == kernels::WeightFormat::int4, "codes of four bits go into an int4 matrix");
    kernels::pack_codes(
        {.source = source, .first_row = first_row, .rows = rows, .inputs = packed_.inputs, .packed = data_});
}

}  // namespace mha2mla::runtime
