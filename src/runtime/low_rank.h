#pragma once

#include <cstdint>
#include <vector>

namespace mha2mla::runtime {

/// A matrix in double precision.
struct DoubleMatrix {
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    std::vector<double> values;  ///< [rows, columns]
};

/// left · right, nearly the matrix that was factored.
struct LowRankFactors {
    std::int64_t rank = 0;
    std::vector<float> left;   ///< [rows, rank], orthonormal columns
    std::vector<float> right;  ///< [rank, columns]
};

/// Gram-Schmidt with column pivoting (Businger and Golub, Numerische Mathematik 7, 1965): the column that is largest
/// after what all earlier ones span was taken from it gives the next direction, until the root mean square of every
/// column's rest is at most `tolerance`. The rank is at most the smaller side of the matrix.
LowRankFactors low_rank_factors(const DoubleMatrix& matrix, double tolerance);

}  // namespace mha2mla::runtime
