#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/matrix.h"
#include "runtime/packed_weights.h"

namespace mha2mla::runtime {

/// Where the packed matrices of a model lie: in memory of our own, or in a file that was packed before.
class WeightStore {
public:
    WeightStore() = default;
    explicit WeightStore(std::shared_ptr<const PackedWeights> packed) : packed_(std::move(packed)) {}

    /// Whether matrices come from a file, and so are filled.
    bool is_filled() const { return packed_ != nullptr; }
    /// The next matrix: zeroed, or the file's. Throws Error where the file has another one.
    Matrix take(const std::string& name, const MatrixShape& shape);
    /// The next matrix: a bf16 one in fewer bits (Matrix::coded).
    Matrix take_coded(const std::string& name, const Matrix& weights, core::ThreadPool& pool);

    const std::vector<NamedMatrix>& matrices() const { return matrices_; }
    std::size_t bytes() const;

private:
    WeightMemory memory_;
    std::shared_ptr<const PackedWeights> packed_;
    std::vector<NamedMatrix> matrices_;
};

}  // namespace mha2mla::runtime
