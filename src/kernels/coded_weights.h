#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/weight_blocks.h"

/// bf16 weights in about 12 bits each, without loss. The low byte of a bf16 number (the last bit of its exponent and
/// the mantissa) is as good as random and stays as it is. Its high byte (sign and exponent) takes few values in trained
/// weights: the 15 most frequent of a tile get codes of four bits, besides 0. A number with another high byte is an
/// exception: it is zero in the tile and stands in a list (1 in 20,000 in SmolLM2). DFloat11 (arXiv 2504.11651) stores
/// the same observation in codes of varying length; codes of one length are read at the memory's speed.
///
/// A matrix is [tile] of CodedTile and its blocks, then [exceptions] of WeightException, those of a tile side by side.
namespace mha2mla::kernels {

std::size_t coded_bytes(std::int64_t tiles, std::int64_t inputs, std::int64_t exceptions);

/// The head of a tile of a bf16 matrix, but for `first_exception`: the codes that leave the fewest exceptions.
CodedTile choose_codes(const PackedMatrix& weights, std::int64_t tile);

/// Completes the heads of all tiles. Returns how many exceptions they have together.
std::int64_t number_exceptions(std::span<CodedTile> heads);

/// Writes a tile and its exceptions into `data`, the memory of the coded matrix, zeroed. Distinct tiles may be written
/// by several threads.
struct CodeTileParams {
    PackedMatrix weights;  // bf16
    std::int64_t tile;
    CodedTile head;  // complete
    void* data;
};
void code_tile(const CodeTileParams& params);

/// A weight of a tile; zero if it is an exception.
float coded_weight(const CodedTileView& tile, std::int64_t input, std::int64_t output);

void unpack_coded_row(const PackedMatrix& matrix, std::int64_t row, float* out);

/// Whether all exceptions of a coded matrix lie where its heads and its shape allow: what a kernel relies on.
bool has_sound_exceptions(const PackedMatrix& matrix);

}  // namespace mha2mla::kernels
