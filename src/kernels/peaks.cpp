#include "kernels/peaks.h"

#include "kernels/cpu/implementations.h"

namespace mha2mla::kernels {

PeakLoops peak_loops(Isa isa) {
    switch (isa) {
        case Isa::portable: return {};
        case Isa::avx2: return {.floats = avx2::float_peak, .bytes = avx2::byte_peak};
        case Isa::avx512:
        case Isa::amx: return {};
    }
    return {};
}

}  // namespace mha2mla::kernels
