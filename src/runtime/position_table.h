#pragma once

#include <cstdint>
#include <vector>

#include "cache/cache_format.h"
#include "runtime/matrix.h"
#include "runtime/rope_table.h"

namespace mha2mla::runtime {

/// Pages whose positional logits come from the same turned query.
inline constexpr std::int64_t position_block_pages = 4;
inline constexpr std::int64_t position_block_tokens = position_block_pages * cache::page_tokens;

/// What the positional part of a query meets: for each position cos, then sin of every rotary frequency, the same for
/// every layer, head and sequence. Only the table of the first block of positions is kept. For another block the query
/// is turned: its angles at position 256 b + u are those at 256 b plus those at u.
///
/// Over so few positions most frequencies turn by less than a circle, and all cosines and sines are nearly sums of a
/// few curves: table [256, d] = basis [256, r] · projection [r, d]. Both stay in a near cache. With bf16 the errors of
/// rank r are below what bf16 rounds off, with f32 they are some units in the last place.
class PositionTable {
public:
    /// The basis is in the numbers of the cache, f32 or bf16: with bf16 the projected queries may be rounded, too.
    PositionTable(const RopeTable& rope, core::DType dtype);

    std::int64_t width() const { return projection_.inputs(); }  ///< d
    std::int64_t rank() const { return projection_.outputs(); }  ///< r, at most d
    /// [position_block_tokens, r]; fewer rows where no sequence is so long.
    const kernels::PackedMatrix& basis() const { return basis_.packed(); }
    /// [r, d], f32.
    const kernels::PackedMatrix& projection() const { return projection_.packed(); }
    /// What makes of queries [rows, d] those whose products with the first block's table are theirs with the positions
    /// of a block.
    kernels::TurnParams turn_to(std::int64_t block, const float* query, std::int64_t rows, float* turned) const;

private:
    std::vector<float> turns_;  // [blocks, cos and sin, pairs], of each block's first position
    WeightMemory memory_;
    Matrix basis_;
    Matrix projection_;
};

}  // namespace mha2mla::runtime
