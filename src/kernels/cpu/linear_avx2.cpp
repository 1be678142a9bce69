#include "kernels/cpu/implementations.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/vector_avx2.h"

namespace mha2mla::kernels::avx2 {

void linear(const LinearParams& params) {
    if (is_grouped(params.weight.format)) return linear_groups(params);
    linear_in_floats<Avx2>(params);
}

}  // namespace mha2mla::kernels::avx2
