#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/implementations.h"
#include "kernels/cpu/vector_avx512.h"

namespace mha2mla::kernels::avx512 {

void rms_norm(const RmsNormParams& params) { rms_norm_with<Avx512>(params); }

void turn(const TurnParams& params) { turn_with<Avx512>(params); }

void swiglu(const SwiGluParams& params) { swiglu_with<Avx512>(params); }

void store_rows(const StoreRowsParams& params) { store_rows_with<Avx512>(params); }

}  // namespace mha2mla::kernels::avx512
