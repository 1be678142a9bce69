#pragma once

#include <cstddef>

#include "kernels/weight_blocks.h"

/// int8 and int4 weights in blocks, for pack.cpp alone.
namespace mha2mla::kernels {

std::size_t block_bytes(WeightFormat format);
void pack_group_rows(const PackParams& params);
void unpack_group_row(const PackedMatrix& matrix, std::int64_t row, float* out);

}  // namespace mha2mla::kernels
