#include "kernels/cpu/scratch.h"

#include <algorithm>

#include "kernels/weight_blocks.h"

namespace mha2mla::kernels {

std::size_t linear_scratch_bytes(std::int64_t rows, std::int64_t inputs) {
    // Rounded x, in whole tiles of rows, and a tile of weights: their codes a byte each, or tiles as bf16 words. Or
    // these words and a tile as floats.
    const std::int64_t group_bytes = groups_of(inputs) * static_cast<std::int64_t>(sizeof(InputGroup));
    const std::int64_t x_bytes = round_up(rows, tile_rows) * std::max(rounded_row_bytes(inputs), group_bytes);
    const std::int64_t code_bytes = groups_of(inputs) * group_inputs * tile_rows;
    const std::int64_t widened_tile_bytes = round_up(inputs, 2) * tile_rows * 4;
    const std::int64_t word_bytes = written_out_bytes(inputs);
    return static_cast<std::size_t>(
        std::max(x_bytes + std::max(code_bytes, word_bytes), widened_tile_bytes + word_bytes));
}

std::size_t attention_scratch_bytes(std::int64_t /*rows*/, std::int64_t key_width, std::int64_t value_width) {
    return static_cast<std::size_t>(attention_scratch(key_width, value_width).bytes);
}

}  // namespace mha2mla::kernels
