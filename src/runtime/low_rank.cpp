#include "runtime/low_rank.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mha2mla::runtime {
namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

std::vector<Vector> columns_of(const DoubleMatrix& matrix) {
    std::vector<Vector> columns(static_cast<std::size_t>(matrix.columns));
    const double* value = matrix.values.data();
    for (std::int64_t row = 0; row < matrix.rows; ++row) {
        for (Vector& column : columns) column.push_back(*value++);
    }
    return columns;
}

const Vector& largest(const std::vector<Vector>& columns) {
    const auto smaller = [](const Vector& a, const Vector& b) { return dot(a, a) < dot(b, b); };
    return *std::max_element(columns.begin(), columns.end(), smaller);
}

Vector normalized(Vector column) {
    const double length = std::sqrt(dot(column, column));
    for (double& value : column) value /= length;
    return column;
}

/// Takes from each column its part along a direction of length 1; that part's length goes into `right`.
void take_direction(const Vector& direction, std::vector<Vector>& columns, std::vector<float>& right) {
    for (Vector& column : columns) {
        const double length = dot(direction, column);
        for (std::size_t row = 0; row < column.size(); ++row) column[row] -= length * direction[row];
        right.push_back(static_cast<float>(length));
    }
}

}  // namespace

LowRankFactors low_rank_factors(const DoubleMatrix& matrix, double tolerance) {
    LowRankFactors factors;
    std::vector<Vector> rest = columns_of(matrix);
    std::vector<Vector> directions;
    const auto most_directions = static_cast<std::size_t>(std::min(matrix.rows, matrix.columns));
    const double most_square = tolerance * tolerance * static_cast<double>(matrix.rows);
    while (directions.size() < most_directions) {
        const Vector& pivot = largest(rest);
        if (dot(pivot, pivot) <= most_square) break;
        directions.push_back(normalized(pivot));
        take_direction(directions.back(), rest, factors.right);
    }
    for (std::size_t row = 0; row < static_cast<std::size_t>(matrix.rows); ++row) {
        for (const Vector& direction : directions) factors.left.push_back(static_cast<float>(direction[row]));
    }
    factors.rank = static_cast<std::int64_t>(directions.size());
    return factors;
}

}  // namespace mha2mla::runtime
