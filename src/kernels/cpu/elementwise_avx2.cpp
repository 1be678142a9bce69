#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/vector_avx2.h"

namespace mha2mla::kernels::avx2 {

void rms_norm(const RmsNormParams& params) { rms_norm_with<Avx2>(params); }

void turn(const TurnParams& params) { turn_with<Avx2>(params); }

void swiglu(const SwiGluParams& params) { swiglu_with<Avx2>(params); }

void store_rows(const StoreRowsParams& params) { store_rows_with<Avx2>(params); }

}  // namespace mha2mla::kernels::avx2
