#include "runtime/matrix.h"

#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/random.h"

namespace mha2mla::runtime {
namespace {

using kernels::WeightFormat;

/// A bf16 matrix of numbers from 1 to 1.5 times powers of two, `powers` different ones, and some -1, whose high byte no
/// other has.
Matrix random_matrix(WeightMemory& memory, int powers) {
    constexpr std::int64_t outputs = 40, inputs = 300;
    core::Random random(3);
    std::vector<float> values(outputs * inputs);
    for (float& value : values) {
        value = core::to_float(core::to_bf16(
            static_cast<float>(std::ldexp(1 + random.uniform() / 2, static_cast<int>(random.below(powers))))));
    }
    for (const std::int64_t output : {0, 17, 18, 39}) values[output * inputs + 7] = -1;  // in each of the tiles
    Matrix matrix(memory, WeightFormat::bf16, outputs, inputs);
    matrix.set_rows(0, outputs, values.data());
    return matrix;
}

std::vector<float> unpacked(const Matrix& matrix) {
    std::vector<float> values;
    for (std::int64_t row = 0; row < matrix.outputs(); ++row) {
        std::vector<float> one(static_cast<std::size_t>(matrix.inputs()));
        kernels::unpack_row(matrix.packed(), row, one.data());
        values.insert(values.end(), one.begin(), one.end());
    }
    return values;
}

TEST(Matrix, OfFewExponentsIsCoded) {
    core::ThreadPool pool(2);
    WeightMemory memory;
    const Matrix weights = random_matrix(memory, 28);
    const Matrix coded = Matrix::coded(memory, weights, pool);
    EXPECT_EQ(coded.packed().format, WeightFormat::coded_bf16);
    EXPECT_EQ(coded.packed().exceptions, 4);
    EXPECT_LT(coded.bytes(), weights.bytes() * 4 / 5);
    EXPECT_EQ(unpacked(coded), unpacked(weights));
}

TEST(Matrix, OfManyExponentsStaysAsItIs) {
    core::ThreadPool pool(2);
    WeightMemory memory;
    const Matrix weights = random_matrix(memory, 60);
    const Matrix same = Matrix::coded(memory, weights, pool);
    EXPECT_EQ(same.packed().format, WeightFormat::bf16);
    EXPECT_NE(same.packed().data, weights.packed().data);
    EXPECT_EQ(unpacked(same), unpacked(weights));
}

}  // namespace
}  // namespace mha2mla::runtime
