#pragma once

#include <cstdint>

#include "core/thread_pool.h"
#include "runtime/matrix.h"

namespace mha2mla::bench {

/// How fast all threads together read memory in order: 512 MB in huge pages, as weights lie.
class ReadBandwidth {
public:
    explicit ReadBandwidth(core::ThreadPool& pool);

    /// Bytes per second, the median of three passes: some 50 ms.
    double measure() const;

private:
    double measure_pass() const;

    core::ThreadPool& pool_;
    runtime::WeightMemory memory_;
    std::uint64_t* words_;
};

}  // namespace mha2mla::bench
