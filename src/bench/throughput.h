#pragma once

#include <cstddef>
#include <stop_token>
#include <string>
#include <vector>

#include "core/progress.h"
#include "core/thread_pool.h"
#include "runtime/decoder.h"

namespace mha2mla::bench {

struct ThroughputOptions {
    int prompt_tokens = 512;        ///< "pp512": tokens of a prefill; 0: not measured
    int generated_tokens = 32;      ///< "tg32": decode steps; 0: not measured
    std::vector<int> depths = {0};  ///< tokens that the cache holds before each measurement
    int repetitions = 3;            ///< the median is reported
};

struct ThroughputResult {
    std::string test;  ///< "pp512", "tg32"
    int depth = 0;
    double tokens_per_second = 0;
    std::size_t kv_bytes_allocated = 0;       ///< by the sequence, at the end of the test
    double kv_bytes_per_token_allocated = 0;  ///< the same, per token
    double bound_tokens_per_second = 0;       ///< decode: read bandwidth / (weights + cache bytes of one step)
    double share_of_bound = 0;                ///< tokens_per_second / bound_tokens_per_second
};

/// Cache tokens that the options need; the decoder's context must hold them.
int context_tokens(const ThroughputOptions& options);

/// Measures prefill and decode at every depth. `bytes_per_second`: of read_bandwidth(); 0 leaves the bounds out.
/// Throws Error for options out of range or a context that is too small.
std::vector<ThroughputResult> throughput(runtime::Decoder& decoder, const ThroughputOptions& options,
                                         double bytes_per_second, core::Progress& progress,
                                         const std::stop_token& stop);

/// Bytes per second that all threads together read from memory in order: the median of ten passes over 512 MB in
/// huge pages, as weights lie.
double read_bandwidth(core::ThreadPool& pool);

}  // namespace mha2mla::bench
