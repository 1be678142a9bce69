#include "bench/read_bandwidth.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <numeric>

#include "bench/median.h"
#include "core/error.h"
#include "kernels/cpu/fetch.h"

namespace mha2mla::bench {
namespace {

constexpr std::int64_t buffer_bytes = std::int64_t{512} << 20;  // larger than any cache
constexpr std::int64_t buffer_words = buffer_bytes / 8;
constexpr std::int64_t grain = 4096;  // words
constexpr int passes = 3;

/// Sum of all words, a cache line at a time in independent lanes so that additions do not wait for each other. Asks for
/// memory ahead, as kernels do: two cores of a Xeon read 20 % more for it.
std::uint64_t sum_words(const std::uint64_t* words, std::int64_t count) {
    constexpr std::int64_t line = kernels::line_bytes / 8;
    std::array<std::uint64_t, line> lanes{};
    for (std::int64_t i = 0; i < count; i += line) {
        kernels::fetch(reinterpret_cast<const char*>(words + i) + kernels::weight_bytes_ahead, kernels::line_bytes);
        for (std::size_t lane = 0; lane < lanes.size(); ++lane)
            lanes[lane] += words[i + static_cast<std::int64_t>(lane)];
    }
    return std::accumulate(lanes.begin(), lanes.end(), std::uint64_t{0});
}

}  // namespace

ReadBandwidth::ReadBandwidth(core::ThreadPool& pool)
    : pool_(pool), words_(reinterpret_cast<std::uint64_t*>(memory_.take(static_cast<std::size_t>(buffer_bytes)))) {
    pool_.parallel_for(buffer_words, grain, [&](std::int64_t begin, std::int64_t end) {
        std::fill(words_ + begin, words_ + end, std::uint64_t{1});
    });
}

double ReadBandwidth::measure() const {
    std::vector<double> speeds;
    for (int pass = 0; pass < passes; ++pass) speeds.push_back(measure_pass());
    return median(std::move(speeds));
}

double ReadBandwidth::measure_pass() const {
    std::atomic<std::uint64_t> sum{0};
    const auto start = std::chrono::steady_clock::now();
    pool_.parallel_for(buffer_words, grain,
                       [&](std::int64_t begin, std::int64_t end) { sum += sum_words(words_ + begin, end - begin); });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    core::invariant(sum == static_cast<std::uint64_t>(buffer_words), "every word was read");
    return static_cast<double>(buffer_bytes) / seconds.count();
}

}  // namespace mha2mla::bench
