#include "bench/machine_peaks.h"

#include <algorithm>
#include <chrono>

#include "bench/read_bandwidth.h"
#include "kernels/peaks.h"

namespace mha2mla::bench {
namespace {

/// Of several passes the best: nothing makes a core faster than it is.
double operations_per_second(double (*loop)(std::int64_t), core::ThreadPool& pool) {
    constexpr std::int64_t iterations = 2'000'000;
    constexpr int passes = 5;
    if (loop == nullptr) return 0;
    double best = 0;
    for (int pass = 0; pass < passes; ++pass) {
        const auto start = std::chrono::steady_clock::now();
        pool.run([&](int) { loop(iterations); });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, loop(1) * static_cast<double>(iterations) * pool.size() / seconds.count());
    }
    return best;
}

}  // namespace

MachinePeaks measure_peaks(kernels::Isa isa, core::ThreadPool& pool) {
    const kernels::PeakLoops loops = kernels::peak_loops(isa);
    const ReadBandwidth bandwidth(pool);
    MachinePeaks peaks{.bytes = 0,
                       .float_operations =
                           std::max(operations_per_second(loops.floats, pool), operations_per_second(loops.bf16, pool)),
                       .integer_operations = operations_per_second(loops.bytes, pool)};
    for (int pass = 0; pass < 3; ++pass) peaks.bytes = std::max(peaks.bytes, bandwidth.measure());
    return peaks;
}

}  // namespace mha2mla::bench
