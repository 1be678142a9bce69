#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/kernels.h"

namespace mha2mla::bench {

struct KernelTiming {
    std::string kernel;    ///< "linear", "attention"
    std::string shape;     ///< "1 x 576 -> 1536 bf16"; of attention with the cache's format
    bool integer = false;  ///< multiplies integers
    double seconds = 0;    ///< of one call over all threads: the best pass
    double gigabytes_per_second = 0;
    double gigaflops_per_second = 0;  ///< multiplications and additions
};

/// Checks each kernel of the set against the portable one, then times it on all threads with the shapes of a small
/// model's decode step and prefill. Every call works on another copy of its data, and the copies together exceed any
/// cache, so that data come from memory as they do in decoding. `only`: kernels whose name and shape contain it. Throws
/// Error where results differ.
std::vector<KernelTiming> bench_kernels(kernels::Isa isa, std::string_view only, core::ThreadPool& pool);

/// How many kernels it would time.
int count_kernels(kernels::Isa isa, std::string_view only, const core::ThreadPool& pool);

}  // namespace mha2mla::bench
