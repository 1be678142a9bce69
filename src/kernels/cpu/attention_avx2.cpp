#include "kernels/cpu/code_attention_avx2.h"
#include "kernels/cpu/few_rows_attention_avx2.h"
#include "kernels/cpu/float_attention_avx2.h"
#include "kernels/cpu/implementations.h"

// Attention over exact rows and sealed pages: each tile by the kernel that reads it best.

namespace mha2mla::kernels {
namespace {

/// Rows [first_row, first_row + rows) over all keys they see.
void attend_tiles(const AttentionParams& params, std::int64_t first_row, std::int64_t rows) {
    RowBlock block = row_block(params, first_row, rows);
    begin(params, block);
    load_queries(params, block);
    const bool few_rows = takes_few_rows(params);
    if (few_rows) split_queries(params, block);
    const bool in_codes = multiplies_codes(params);
    const CodeTile code_tile = in_codes ? code_tile_of(params, block) : CodeTile{};
    if (in_codes) spread_queries(params, block, code_tile);
    for (std::int64_t key = params.first_key; key < block.end_key;) {
        const KeyTile tile = tile_at(params, key, block.end_key);
        key += tile.tokens;
        block.next = next_tile(params, block, key);
        if (few_rows && !tile.sealed) {
            attend_few_rows_tile(params, block, tile);
        } else if (in_codes && is_code_page(tile)) {
            attend_code_tile(params, block, code_tile, tile);
        } else {
            attend_tile(params, block, tile);
        }
    }
    write_out(params, block);
}

}  // namespace

void avx2::attention(const AttentionParams& params) {
    for (std::int64_t row = 0; row < params.rows; row += most_block_rows) {
        attend_tiles(params, row, smaller(most_block_rows, params.rows - row));
    }
}

}  // namespace mha2mla::kernels
