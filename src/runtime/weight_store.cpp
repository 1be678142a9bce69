#include "runtime/weight_store.h"

namespace mha2mla::runtime {

Matrix WeightStore::take(const std::string& name, const MatrixShape& shape) {
    const Matrix matrix =
        is_filled() ? Matrix(packed_->find(name, shape)) : Matrix(memory_, shape.format, shape.outputs, shape.inputs);
    matrices_.push_back({name, matrix.packed()});
    return matrix;
}

Matrix WeightStore::take_coded(const std::string& name, const Matrix& weights, core::ThreadPool& pool) {
    const Matrix matrix = Matrix::coded(memory_, weights, pool);
    matrices_.push_back({name, matrix.packed()});
    return matrix;
}

std::size_t WeightStore::bytes() const {
    std::size_t bytes = 0;
    for (const NamedMatrix& matrix : matrices_) bytes += matrix.bytes();
    return bytes;
}

}  // namespace mha2mla::runtime
