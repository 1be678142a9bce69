#pragma once

#include <cstddef>
#include <stop_token>
#include <string>
#include <vector>

#include "core/function_ref.h"
#include "core/progress.h"
#include "runtime/decoder.h"

namespace mha2mla::bench {

struct ThroughputOptions {
    int prompt_tokens = 512;        ///< "pp512": tokens of a prefill; 0: not measured
    int generated_tokens = 32;      ///< "tg32": decode steps; 0: not measured
    std::vector<int> depths = {0};  ///< tokens that the cache holds before each measurement
    int parallel = 1;               ///< sequences of the decode test, each with its own tokens
    int repetitions = 3;            ///< the median is reported
};

struct ThroughputResult {
    std::string test;  ///< "pp512", "tg32", "tg32x8" of 8 sequences
    int depth = 0;
    double tokens_per_second = 0;             ///< of all sequences together
    std::size_t kv_bytes_allocated = 0;       ///< by the sequences, at the end of the test
    double kv_bytes_per_token_allocated = 0;  ///< the same, per token
    double bytes_per_second = 0;              ///< decode: read bandwidth, the median of what was measured meanwhile
    double bound_tokens_per_second = 0;       ///< decode: bytes_per_second / (weights + cache bytes of one step)
    double share_of_bound = 0;                ///< tokens_per_second / bound_tokens_per_second
};

/// Cache tokens that a sequence needs; the decoder's context must hold them, its cache those of all sequences.
int context_tokens(const ThroughputOptions& options);

/// Measures prefill and decode at every depth. `bytes_per_second` (ReadBandwidth::measure, or a known number; 0 leaves
/// the bound out) is called around every decode repetition, because the bandwidth of a shared machine varies.
/// Throws Error for options out of range or a context that is too small.
std::vector<ThroughputResult> throughput(runtime::Decoder& decoder, const ThroughputOptions& options,
                                         core::FunctionRef<double()> bytes_per_second, core::Progress& progress,
                                         const std::stop_token& stop);

}  // namespace mha2mla::bench
