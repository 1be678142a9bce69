#pragma once

#include <cstdint>

#include "kernels/kernels.h"

/// What a core can compute at most, to measure kernels by. A loop multiplies and adds in registers alone and returns
/// how many multiplications and additions it did; null where a set has no such loop.
namespace mha2mla::kernels {

struct PeakLoops {
    double (*floats)(std::int64_t iterations) = nullptr;
    double (*bf16)(std::int64_t iterations) = nullptr;   ///< products of bf16, added up to floats
    double (*bytes)(std::int64_t iterations) = nullptr;  ///< products of 8-bit integers, added up to 32 bits
};

PeakLoops peak_loops(Isa isa);

}  // namespace mha2mla::kernels
