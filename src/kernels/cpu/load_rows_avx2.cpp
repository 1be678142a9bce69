#include "kernels/cpu/coded_rows_avx2.h"
#include "kernels/cpu/implementations.h"

namespace mha2mla::kernels::avx2 {

void load_rows(const LoadRowsParams& params) {
    float* y = params.y;
    for (const CodedRows& part : params.parts) {
        load_coded(part, static_cast<const char*>(params.block), {params.first_row, params.rows}, {y, params.y_stride});
        y += part.width;
    }
}

}  // namespace mha2mla::kernels::avx2
