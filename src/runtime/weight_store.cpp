#include "runtime/weight_store.h"

namespace mha2mla::runtime {

Matrix WeightStore::take(const std::string& name, const MatrixShape& shape) {
    const Matrix matrix =
        is_filled() ? Matrix(packed_->find(name, shape)) : Matrix(memory_, shape.format, shape.outputs, shape.inputs);
    matrices_.push_back({name, matrix.packed()});
    return matrix;
}

std::size_t WeightStore::bytes() const {
    std::size_t bytes = 0;
    for (const NamedMatrix& matrix : matrices_) bytes += matrix.bytes();
    return bytes;
}

}  // namespace mha2mla::runtime
