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
    : rope_(&rope), matrix_(memory_, format_of(dtype), cache::page_tokens, 2 * rope.pairs()) {
    const auto pairs = static_cast<std::size_t>(rope.pairs());
    std::vector<float> row(2 * pairs);
    const float* entry = rope.data();
    for (std::int64_t position = 0; position < cache::page_tokens; ++position) {
        for (std::size_t i = 0; i < pairs; ++i) {
            row[i] = *entry++;
            row[i + pairs] = *entry++;
        }
        matrix_.set_rows(position, 1, row.data());
    }
}

void PositionTable::turn(const float* query, std::int64_t rows, std::int64_t page, float* turned) const {
    const std::int64_t pairs = rope_->pairs();
    const float* const entry = rope_->data() + page * cache::page_tokens * 2 * pairs;
    for (std::int64_t row = 0; row < rows; ++row, query += 2 * pairs, turned += 2 * pairs) {
        for (std::int64_t i = 0; i < pairs; ++i) {
            const float cos = entry[2 * i], sin = entry[2 * i + 1];
            turned[i] = query[i] * cos + query[i + pairs] * sin;
            turned[i + pairs] = query[i + pairs] * cos - query[i] * sin;
        }
    }
}

}  // namespace mha2mla::runtime
