#include "runtime/position_table.h"

#include <algorithm>
#include <vector>

#include "runtime/low_rank.h"

namespace mha2mla::runtime {
namespace {

kernels::WeightFormat format_of(core::DType dtype) {
    return dtype == core::DType::f32 ? kernels::WeightFormat::f32 : kernels::WeightFormat::bf16;
}

/// Root mean square of a column's errors. Cosines and sines as bf16 are off by some 1e-3, as floats by 2e-8.
double tolerance_of(core::DType dtype) { return dtype == core::DType::f32 ? 1e-7 : 3e-4; }

/// cos, then sin of every frequency at a position, added to `rows`.
template <typename T>
void add_row(const RopeTable& rope, std::int64_t position, std::vector<T>& rows) {
    const float* const entry = rope.data() + position * 2 * rope.pairs();
    for (const int part : {0, 1}) {
        for (std::int64_t pair = 0; pair < rope.pairs(); ++pair) rows.push_back(entry[2 * pair + part]);
    }
}

DoubleMatrix first_block(const RopeTable& rope) {
    DoubleMatrix table{
        .rows = std::min(position_block_tokens, rope.positions()), .columns = 2 * rope.pairs(), .values = {}};
    for (std::int64_t position = 0; position < table.rows; ++position) add_row(rope, position, table.values);
    return table;
}

}  // namespace

PositionTable::PositionTable(const RopeTable& rope, core::DType dtype) {
    const DoubleMatrix table = first_block(rope);
    const LowRankFactors factors = low_rank_factors(table, tolerance_of(dtype));
    basis_ = Matrix(memory_, format_of(dtype), table.rows, factors.rank);
    basis_.set_rows(0, table.rows, factors.left.data());
    projection_ = Matrix(memory_, kernels::WeightFormat::f32, factors.rank, table.columns);
    projection_.set_rows(0, factors.rank, factors.right.data());
    for (std::int64_t position = 0; position < rope.positions(); position += position_block_tokens) {
        add_row(rope, position, turns_);
    }
}

kernels::TurnParams PositionTable::turn_to(std::int64_t block, const float* query, std::int64_t rows,
                                           float* turned) const {
    const float* const cos = turns_.data() + block * width();
    return {.x = query, .y = turned, .rows = rows, .pairs = width() / 2, .cos = cos, .sin = cos + width() / 2};
}

}  // namespace mha2mla::runtime
