#include "runtime/weight_loader.h"

#include "core/error.h"

namespace mha2mla::runtime {
namespace {

constexpr std::int64_t rows_at_a_time = 64;  // bounds the float copy of a tensor: 64 rows a thread

}  // namespace

std::vector<float> WeightLoader::vector(const std::string& name, std::int64_t width) const {
    return model_.read(name, {width});
}

Matrix WeightLoader::matrix(const std::string& name, std::int64_t outputs, std::int64_t inputs) const {
    Matrix matrix(memory_, dtype_, outputs, inputs);
    read_into(matrix, 0, {.name = name, .outputs = outputs});
    return matrix;
}

Linear WeightLoader::linear(const std::vector<Projection>& projections, std::int64_t inputs, bool has_bias) const {
    std::int64_t outputs = 0;
    for (const Projection& projection : projections) outputs += projection.outputs;
    Linear linear{.weight = Matrix(memory_, dtype_, outputs, inputs), .bias = {}};
    std::int64_t first_row = 0;
    for (const Projection& projection : projections) {
        read_into(linear.weight, first_row, {.name = projection.name + ".weight", .outputs = projection.outputs});
        first_row += projection.outputs;
        if (!has_bias) continue;
        const auto bias = vector(projection.name + ".bias", projection.outputs);
        linear.bias.insert(linear.bias.end(), bias.begin(), bias.end());
    }
    return linear;
}

Matrix WeightLoader::pack(const std::vector<float>& values, std::int64_t outputs, std::int64_t inputs) const {
    core::invariant(static_cast<std::int64_t>(values.size()) == outputs * inputs, "a matrix is packed whole");
    Matrix matrix(memory_, dtype_, outputs, inputs);
    matrix.set_rows(0, outputs, values.data());
    return matrix;
}

void WeightLoader::read_into(const Matrix& matrix, std::int64_t first_row, const Projection& tensor) const {
    const checkpoint::Shape shape{tensor.outputs, matrix.inputs()};
    pool_.parallel_for(tensor.outputs, rows_at_a_time, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> values(static_cast<std::size_t>(rows_at_a_time * matrix.inputs()));
        for (std::int64_t row = begin; row < end; row += rows_at_a_time) {
            const std::int64_t rows = std::min(rows_at_a_time, end - row);
            const std::span<float> block(values.data(), static_cast<std::size_t>(rows * matrix.inputs()));
            model_.read_rows(tensor.name, shape, row, rows, block);
            matrix.set_rows(first_row + row, rows, block.data());
        }
    });
}

}  // namespace mha2mla::runtime
