#pragma once

#include <cstdint>
#include <vector>

#include "runtime/matrix.h"
#include "runtime/rope_table.h"

namespace mha2mla::runtime {

/// What the positional part of a query meets: for each position cos, then sin of every rotary frequency, the same for
/// every layer, head and sequence. Only the positions of the first page are kept, which stay in a near cache. For
/// another page the query is turned: its angles at position 64 p + u are those at 64 p plus those at u.
class PositionTable {
public:
    /// In the numbers of the cache, f32 or bf16: with bf16 the queries may be rounded, too.
    PositionTable(const RopeTable& rope, core::DType dtype);

    std::int64_t width() const { return matrix_.inputs(); }  ///< d
    /// [page_tokens, d].
    const kernels::PackedMatrix& first_page() const { return matrix_.packed(); }
    /// What makes of queries [rows, d] those whose products with the first page are theirs with the positions of a
    /// page.
    kernels::TurnParams turn_to(std::int64_t page, const float* query, std::int64_t rows, float* turned) const;

private:
    std::vector<float> turns_;  // [pages, cos and sin, pairs], of each page's first position
    WeightMemory memory_;
    Matrix matrix_;
};

}  // namespace mha2mla::runtime
