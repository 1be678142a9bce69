#include "kernels/cpu/float_attention_avx2.h"
#include "kernels/cpu/implementations.h"

namespace mha2mla::kernels::avx2 {

void attention(const AttentionParams& params) {
    for (std::int64_t row = 0; row < params.rows; row += most_block_rows) {
        attend_in_floats(params, row, smaller(most_block_rows, params.rows - row));
    }
}

}  // namespace mha2mla::kernels::avx2
