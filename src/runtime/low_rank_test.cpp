#include "runtime/low_rank.h"

#include <cmath>
#include <gtest/gtest.h>

#include "core/random.h"

namespace mha2mla::runtime {
namespace {

DoubleMatrix random_matrix(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
    core::Random random(seed);
    DoubleMatrix matrix{.rows = rows, .columns = columns, .values = {}};
    for (std::int64_t i = 0; i < rows * columns; ++i) matrix.values.push_back(2 * random.uniform() - 1);
    return matrix;
}

template <typename A, typename B>
DoubleMatrix product(std::int64_t rows, std::int64_t rank, const std::vector<A>& left, const std::vector<B>& right) {
    const std::int64_t columns = rank == 0 ? 0 : static_cast<std::int64_t>(right.size()) / rank;
    DoubleMatrix result{.rows = rows, .columns = columns, .values = {}};
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t column = 0; column < columns; ++column) {
            double sum = 0;
            for (std::int64_t k = 0; k < rank; ++k) {
                sum += double{left[static_cast<std::size_t>(row * rank + k)]} *
                       right[static_cast<std::size_t>(k * columns + column)];
            }
            result.values.push_back(sum);
        }
    }
    return result;
}

/// The largest root mean square, over the rows, of a column's errors.
double largest_column_error(const DoubleMatrix& matrix, const LowRankFactors& factors) {
    const DoubleMatrix approximation = product(matrix.rows, factors.rank, factors.left, factors.right);
    double largest = 0;
    for (std::int64_t column = 0; column < matrix.columns; ++column) {
        double square = 0;
        for (std::int64_t row = 0; row < matrix.rows; ++row) {
            const auto i = static_cast<std::size_t>(row * matrix.columns + column);
            square += std::pow(matrix.values[i] - approximation.values[i], 2);
        }
        largest = std::max(largest, std::sqrt(square / static_cast<double>(matrix.rows)));
    }
    return largest;
}

TEST(LowRank, FindsTheRankOfAProduct) {
    for (const auto& [rows, columns] : {std::pair{40, 30}, std::pair{9, 64}}) {
        const auto matrix = product(rows, 5, random_matrix(rows, 5, 1).values, random_matrix(5, columns, 2).values);
        const LowRankFactors factors = low_rank_factors(matrix, 1e-6);
        EXPECT_EQ(factors.rank, 5);
        EXPECT_LT(largest_column_error(matrix, factors), 1e-6);
    }
}

TEST(LowRank, KeepsAMatrixOfFullRank) {
    for (const auto& [rows, columns] : {std::pair{20, 20}, std::pair{30, 8}, std::pair{8, 30}}) {
        const auto matrix = random_matrix(rows, columns, 3);
        const LowRankFactors factors = low_rank_factors(matrix, 0);
        EXPECT_EQ(factors.rank, std::min(rows, columns));
        EXPECT_LT(largest_column_error(matrix, factors), 1e-6);
    }
}

TEST(LowRank, StopsAtTheTolerance) {
    const auto matrix = random_matrix(30, 20, 4);
    std::int64_t rank = 20;
    for (const double tolerance : {0.4, 0.45, 0.5}) {
        const LowRankFactors factors = low_rank_factors(matrix, tolerance);
        EXPECT_LT(factors.rank, rank);
        EXPECT_LE(largest_column_error(matrix, factors), tolerance + 1e-6);
        rank = factors.rank;
    }
    EXPECT_EQ(low_rank_factors(matrix, 1).rank, 0) << "all columns are below";
}

TEST(LowRank, LeftColumnsAreOrthonormal) {
    const LowRankFactors factors = low_rank_factors(random_matrix(30, 20, 5), 0.1);
    for (std::int64_t a = 0; a < factors.rank; ++a) {
        for (std::int64_t b = 0; b < factors.rank; ++b) {
            double sum = 0;
            for (std::int64_t row = 0; row < 30; ++row) {
                sum += double{factors.left[static_cast<std::size_t>(row * factors.rank + a)]} *
                       factors.left[static_cast<std::size_t>(row * factors.rank + b)];
            }
            EXPECT_NEAR(sum, a == b ? 1 : 0, 1e-6);
        }
    }
}

}  // namespace
}  // namespace mha2mla::runtime
