#pragma once

#include "core/thread_pool.h"
#include "kernels/kernels.h"

namespace mha2mla::bench {

/// The most that all threads together do in a second; 0 where the kernel set has no measure of it.
struct MachinePeaks {
    double bytes = 0;               ///< read from memory in order
    double float_operations = 0;    ///< multiplications and additions of floats or of bf16, whichever are more
    double integer_operations = 0;  ///< of 8-bit integers
};

/// Measures them: about half a second.
MachinePeaks measure_peaks(kernels::Isa isa, core::ThreadPool& pool);

}  // namespace mha2mla::bench
