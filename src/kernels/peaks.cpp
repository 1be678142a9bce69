#include "kernels/peaks.h"

#include "kernels/cpu/implementations.h"

namespace mha2mla::kernels {

PeakLoops peak_loops(Isa isa) {
    switch (isa) {
        case Isa::portable: return {};
        case Isa::avx2: return {.floats = avx2::float_peak, .bytes = avx2::byte_peak};
        case Isa::avx512: return {.floats = avx512::float_peak, .bf16 = avx512::bf16_peak, .bytes = avx512::byte_peak};
        case Isa::amx: return {.bf16 = amx::bf16_peak, .bytes = amx::byte_peak};
    }
    return {};
}

}  // namespace mha2mla::kernels
