#include "runtime/position_table.h"

#include <vector>

namespace mha2mla::runtime {

PositionTable::PositionTable(const RopeTable& rope, std::int64_t positions, core::DType dtype, core::ThreadPool& pool)
    : matrix_(memory_, kernels::weight_format(dtype), positions, 2 * rope.pairs()) {
    const std::int64_t pairs = rope.pairs();
    pool.parallel_for(positions, 256, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> row(static_cast<std::size_t>(2 * pairs));
        for (std::int64_t position = begin; position < end; ++position) {
            const float* const entry = rope.data() + position * 2 * pairs;
            for (std::int64_t i = 0; i < pairs; ++i) {
                row[static_cast<std::size_t>(i)] = entry[2 * i];
                row[static_cast<std::size_t>(i + pairs)] = entry[2 * i + 1];
            }
            matrix_.set_rows(position, 1, row.data());
        }
    });
}

}  // namespace mha2mla::runtime
