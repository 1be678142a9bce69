#include "runtime/weight_loader.h"

#include "core/error.h"

namespace mha2mla::runtime {
namespace {

using kernels::WeightFormat;

constexpr std::int64_t rows_at_a_time = 64;  // bounds the float copy of a tensor: 64 rows a thread

/// Splits rows over the threads and hands them to task(first row, rows, buffer), some at a time. A thread's buffer
/// holds row_values each.
template <typename Value, typename Task>
void each_row_block(core::ThreadPool& pool, std::int64_t rows, std::int64_t row_values, const Task& task) {
    pool.parallel_for(rows, rows_at_a_time, [&](std::int64_t begin, std::int64_t end) {
        std::vector<Value> values(static_cast<std::size_t>(rows_at_a_time * row_values));
        for (std::int64_t row = begin; row < end; row += rows_at_a_time) {
            const std::int64_t count = std::min(rows_at_a_time, end - row);
            task(row, count, std::span(values.data(), static_cast<std::size_t>(count * row_values)));
        }
    });
}

}  // namespace

std::vector<float> WeightLoader::vector(const std::string& name, std::int64_t width) const {
    return model_.read(name, {width});
}

Matrix WeightLoader::output(const std::string& name, std::int64_t outputs, std::int64_t inputs) const {
    return filled(name, {formats_.output, outputs, inputs},
                  [&](const Matrix& matrix) { read_into(matrix, 0, {.name = name, .outputs = outputs}); });
}

Linear WeightLoader::linear(const std::vector<Projection>& projections, std::int64_t inputs, bool has_bias) const {
    std::int64_t outputs = 0;
    for (const Projection& projection : projections) outputs += projection.outputs;
    const auto read_all = [&](const Matrix& matrix) {
        std::int64_t first_row = 0;
        for (const Projection& projection : projections) {
            read_into(matrix, first_row, {.name = projection.name + ".weight", .outputs = projection.outputs});
            first_row += projection.outputs;
        }
    };
    Linear linear{.weight = filled(projections.front().name + ".weight", {formats_.layers, outputs, inputs}, read_all),
                  .bias = {}};
    if (!has_bias) return linear;
    for (const Projection& projection : projections) {
        const auto bias = vector(projection.name + ".bias", projection.outputs);
        linear.bias.insert(linear.bias.end(), bias.begin(), bias.end());
    }
    return linear;
}

Matrix WeightLoader::derived(const std::string& name, std::int64_t outputs, std::int64_t inputs,
                             core::FunctionRef<std::vector<float>()> compute) const {
    const WeightFormat format = kernels::is_grouped(formats_.layers) ? WeightFormat::bf16 : formats_.layers;
    return filled(name, {format, outputs, inputs}, [&](const Matrix& matrix) {
        const std::vector<float> values = compute();
        core::invariant(static_cast<std::int64_t>(values.size()) == outputs * inputs, "a matrix is packed whole");
        matrix.set_rows(0, outputs, values.data());
    });
}

Matrix WeightLoader::filled(const std::string& name, const MatrixShape& shape,
                            core::FunctionRef<void(const Matrix&)> fill) const {
    if (store_.is_filled()) return store_.take(name, shape);
    if (shape.format != WeightFormat::bf16) {
        const Matrix matrix = store_.take(name, shape);
        fill(matrix);
        return matrix;
    }
    WeightMemory memory(cache::PageSize::normal);  // until it is coded
    const Matrix matrix(memory, shape.format, shape.outputs, shape.inputs);
    fill(matrix);
    return store_.take_coded(name, matrix, pool_);
}

void WeightLoader::read_into(const Matrix& matrix, std::int64_t first_row, const Projection& tensor) const {
    if (matrix.packed().format == WeightFormat::int4 && model_.tensors().has_codes(tensor.name)) {
        read_codes(matrix, first_row, tensor);
    } else {
        read_rows(matrix, first_row, tensor);
    }
}

void WeightLoader::read_rows(const Matrix& matrix, std::int64_t first_row, const Projection& tensor) const {
    const checkpoint::Shape shape{tensor.outputs, matrix.inputs()};
    each_row_block<float>(pool_, tensor.outputs, matrix.inputs(),
                          [&](std::int64_t row, std::int64_t rows, auto values) {
                              model_.read_rows(tensor.name, shape, row, rows, values);
                              matrix.set_rows(first_row + row, rows, values.data());
                          });
}

/// Whatever the codes were made from, they lose nothing.
void WeightLoader::read_codes(const Matrix& matrix, std::int64_t first_row, const Projection& tensor) const {
    const std::int64_t groups = matrix.inputs() / kernels::group_inputs;
    each_row_block<core::CodeGroup>(pool_, tensor.outputs, groups,
                                    [&](std::int64_t row, std::int64_t rows, auto codes) {
                                        model_.tensors().read_codes(tensor.name, row, rows, codes);
                                        matrix.set_codes(first_row + row, rows, codes.data());
                                    });
}

}  // namespace mha2mla::runtime
