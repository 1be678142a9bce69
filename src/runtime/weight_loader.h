#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/function_ref.h"
#include "core/thread_pool.h"
#include "runtime/weight_store.h"

namespace mha2mla::runtime {

/// A tensor of a checkpoint that becomes rows of a matrix: "<name>.weight" [outputs, inputs], "<name>.bias" [outputs].
struct Projection {
    std::string name;
    std::int64_t outputs = 0;
};

/// Brings tensors of a checkpoint into packed matrices. Where the store's are filled, none is read.
class WeightLoader {
public:
    WeightLoader(const checkpoint::Checkpoint& model, const WeightFormats& formats, WeightStore& store,
                 core::ThreadPool& pool)
        : model_(model), formats_(formats), store_(store), pool_(pool) {}

    /// A tensor [width].
    std::vector<float> vector(const std::string& name, std::int64_t width) const;
    /// A tensor [outputs, inputs] in the output matrix's format, read and packed by all threads a few rows at a time.
    Matrix output(const std::string& name, std::int64_t outputs, std::int64_t inputs) const;
    /// Several projections of the same input, one below the other, named after the first.
    Linear linear(const std::vector<Projection>& projections, std::int64_t inputs, bool has_bias) const;
    /// A matrix that is computed from others, row-major.
    Matrix derived(const std::string& name, std::int64_t outputs, std::int64_t inputs,
                   core::FunctionRef<std::vector<float>()> compute) const;

private:
    /// The store's next matrix, filled by fill(matrix) unless it comes from a file.
    Matrix filled(const std::string& name, const MatrixShape& shape, core::FunctionRef<void(const Matrix&)> fill) const;
    void read_into(const Matrix& matrix, std::int64_t first_row, const Projection& tensor) const;
    void read_rows(const Matrix& matrix, std::int64_t first_row, const Projection& tensor) const;
    void read_codes(const Matrix& matrix, std::int64_t first_row, const Projection& tensor) const;

    const checkpoint::Checkpoint& model_;
    WeightFormats formats_;
    WeightStore& store_;
    core::ThreadPool& pool_;
};

}  // namespace mha2mla::runtime
