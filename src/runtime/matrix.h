#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cache/arena.h"
#include "core/dtype.h"
#include "core/thread_pool.h"
#include "kernels/kernels.h"

namespace mha2mla::runtime {

inline std::size_t bytes_of(const kernels::PackedMatrix& matrix) {
    return kernels::packed_bytes(matrix.format, matrix.outputs, matrix.inputs, matrix.exceptions);
}

/// Memory of a model's weights, handed out in 64-byte aligned pieces from large arenas.
class WeightMemory {
public:
    explicit WeightMemory(cache::PageSize pages = cache::PageSize::huge) : pages_(pages) {}

    std::byte* take(std::size_t bytes);
    std::size_t bytes() const { return taken_; }

private:
    cache::PageSize pages_;
    std::vector<cache::Arena> arenas_;
    std::size_t used_ = 0;  // of the last arena
    std::size_t taken_ = 0;
};

/// A weight matrix [outputs, inputs] in the kernels' packed layout. Its memory belongs to a WeightMemory.
class Matrix {
public:
    Matrix() = default;
    Matrix(WeightMemory& memory, kernels::WeightFormat format, std::int64_t outputs, std::int64_t inputs);
    /// One that is packed already.
    explicit Matrix(const kernels::PackedMatrix& packed) : packed_(packed) {}

    const kernels::PackedMatrix& packed() const { return packed_; }
    std::int64_t outputs() const { return packed_.outputs; }
    std::int64_t inputs() const { return packed_.inputs; }
    std::size_t bytes() const { return bytes_of(packed_); }

    /// A bf16 matrix in fewer bits: coded, unless it has too many exceptions, then as it is.
    static Matrix coded(WeightMemory& memory, const Matrix& weights, core::ThreadPool& pool);

    /// Packs rows [first_row, first_row + rows) of a row-major source. Distinct rows may be set from several threads.
    void set_rows(std::int64_t first_row, std::int64_t rows, const float* source) const;
    /// The same for an int4 matrix and a source of codes, [rows, inputs / 32].
    void set_codes(std::int64_t first_row, std::int64_t rows, const core::CodeGroup* source) const;

private:
    void check_rows(std::int64_t first_row, std::int64_t rows) const;

    kernels::PackedMatrix packed_;
    void* data_ = nullptr;
};

/// A matrix and its bias.
struct Linear {
    Matrix weight;
    std::vector<float> bias;  ///< [outputs], or empty

    const float* bias_or_null() const { return bias.empty() ? nullptr : bias.data(); }
};

}  // namespace mha2mla::runtime
