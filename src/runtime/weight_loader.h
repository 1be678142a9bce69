#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/thread_pool.h"
#include "runtime/matrix.h"

namespace mha2mla::runtime {

/// A tensor of a checkpoint that becomes rows of a matrix: "<name>.weight" [outputs, inputs], "<name>.bias" [outputs].
struct Projection {
    std::string name;
    std::int64_t outputs = 0;
};

/// Reads tensors of a checkpoint into packed matrices.
class WeightLoader {
public:
    WeightLoader(const checkpoint::Checkpoint& model, core::DType dtype, WeightMemory& memory, core::ThreadPool& pool)
        : model_(model), dtype_(dtype), memory_(memory), pool_(pool) {}

    /// A tensor [width].
    std::vector<float> vector(const std::string& name, std::int64_t width) const;
    /// A tensor [outputs, inputs], read and packed by all threads a few rows at a time.
    Matrix matrix(const std::string& name, std::int64_t outputs, std::int64_t inputs) const;
    /// Several projections of the same input, one below the other.
    Linear linear(const std::vector<Projection>& projections, std::int64_t inputs, bool has_bias) const;
    /// From row-major values in memory.
    Matrix pack(const std::vector<float>& values, std::int64_t outputs, std::int64_t inputs) const;

private:
    void read_into(const Matrix& matrix, std::int64_t first_row, const Projection& tensor) const;

    const checkpoint::Checkpoint& model_;
    core::DType dtype_;
    WeightMemory& memory_;
    core::ThreadPool& pool_;
};

}  // namespace mha2mla::runtime
