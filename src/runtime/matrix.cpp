#include "runtime/matrix.h"

#include <algorithm>

#include "core/error.h"

namespace mha2mla::runtime {
namespace {

constexpr std::size_t arena_bytes = std::size_t{64} << 20;
constexpr std::size_t alignment = 64;

}  // namespace

std::byte* WeightMemory::take(std::size_t bytes) {
    const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
    if (arenas_.empty() || used_ + whole > arenas_.back().size()) {
        arenas_.emplace_back(std::max(whole, arena_bytes), cache::PageSize::huge);
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
