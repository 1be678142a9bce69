#include "runtime/position_table.h"

#include <vector>

#include "cache/cache_format.h"

namespace mha2mla::runtime {
namespace {

kernels::WeightFormat format_of(core::DType dtype) {
    return dtype == core::DType::f32 ? kernels::WeightFormat::f32 : kernels::WeightFormat::bf16;
}

}  // namespace

PositionTable::PositionTable(const RopeTable& rope, core::DType dtype)
    : matrix_(memory_, format_of(dtype), cache::page_tokens, 2 * rope.pairs()) {
    const auto pairs = static_cast<std::size_t>(rope.pairs());
    std::vector<float> row(2 * pairs);
    const auto read_row = [&](std::int64_t position) {
        const float* entry = rope.data() + position * 2 * rope.pairs();
        for (std::size_t i = 0; i < pairs; ++i) {
            row[i] = *entry++;
            row[i + pairs] = *entry++;
        }
    };
    for (std::int64_t position = 0; position < cache::page_tokens; ++position) {
        read_row(position);
        matrix_.set_rows(position, 1, row.data());
    }
    for (std::int64_t position = 0; position < rope.positions(); position += cache::page_tokens) {
        read_row(position);
        turns_.insert(turns_.end(), row.begin(), row.end());
    }
}

kernels::TurnParams PositionTable::turn_to(std::int64_t page, const float* query, std::int64_t rows,
                                           float* turned) const {
    const float* const cos = turns_.data() + page * width();
    return {.x = query, .y = turned, .rows = rows, .pairs = width() / 2, .cos = cos, .sin = cos + width() / 2};
}

}  // namespace mha2mla::runtime
