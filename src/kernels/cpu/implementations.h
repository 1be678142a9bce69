#pragma once

#include "kernels/kernels.h"

/// The kernels of each instruction set, for dispatch.cpp alone. A set borrows the portable version of what is not worth
/// its own.
namespace mha2mla::kernels {

namespace portable {
void linear(const LinearParams& params);
void rms_norm(const RmsNormParams& params);
void rope(const RopeParams& params);
void turn(const TurnParams& params);
void swiglu(const SwiGluParams& params);
void store_rows(const StoreRowsParams& params);
void load_rows(const LoadRowsParams& params);
void attention(const AttentionParams& params);
void merge(const MergeParams& params);
}  // namespace portable

namespace avx2 {
void linear(const LinearParams& params);
void linear_groups(const LinearParams& params);  // int8 and int4
double float_peak(std::int64_t iterations);      // of kernels/peaks.h
double byte_peak(std::int64_t iterations);
void rms_norm(const RmsNormParams& params);
void turn(const TurnParams& params);
void swiglu(const SwiGluParams& params);
void store_rows(const StoreRowsParams& params);
void load_rows(const LoadRowsParams& params);
void attention(const AttentionParams& params);
}  // namespace avx2

namespace avx512 {
void linear(const LinearParams& params);
void linear_groups(const LinearParams& params);  // int8 and int4
double float_peak(std::int64_t iterations);
double bf16_peak(std::int64_t iterations);
double byte_peak(std::int64_t iterations);
void rms_norm(const RmsNormParams& params);
void turn(const TurnParams& params);
void swiglu(const SwiGluParams& params);
void store_rows(const StoreRowsParams& params);
void attention(const AttentionParams& params);
}  // namespace avx512

namespace amx {
void linear(const LinearParams& params);
void linear_groups(const LinearParams& params);  // int8 and int4
double bf16_peak(std::int64_t iterations);
double byte_peak(std::int64_t iterations);
void attention(const AttentionParams& params);
}  // namespace amx

}  // namespace mha2mla::kernels
