#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/thread_pool.h"
#include "runtime/matrix.h"
#include "runtime/rope_table.h"

namespace mha2mla::runtime {

/// What the positional part of a query meets: for each position cos, then sin of every rotary frequency, [positions, d]
/// as a packed matrix. The same for every layer, head and sequence, and small: it stays near the processor.
class PositionTable {
public:
    /// Empty: the model has no positional part.
    PositionTable() = default;
    PositionTable(const RopeTable& rope, std::int64_t positions, core::DType dtype, core::ThreadPool& pool);

    const kernels::PackedMatrix* matrix_or_null() const { return matrix_.outputs() == 0 ? nullptr : &matrix_.packed(); }

    std::size_t bytes_per_position() const {
        return kernels::packed_bytes(matrix_.packed().format, kernels::tile_rows, matrix_.inputs()) /
               static_cast<std::size_t>(kernels::tile_rows);
    }

private:
    WeightMemory memory_;
    Matrix matrix_;
};

}  // namespace mha2mla::runtime
