#include "kernels/cpu/attention_floats.h"
#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/vector_avx2.h"

namespace mha2mla::kernels::avx2 {

void attention(const AttentionParams& params) { attend_in_lanes<Avx2, FloatWords<Avx2>>(params); }

}  // namespace mha2mla::kernels::avx2
