#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "bench/median.h"
#include "bench/throughput.h"
#include "runtime/matrix.h"

namespace mha2mla::bench {
namespace {

constexpr std::int64_t buffer_words = (std::int64_t{512} << 20) / 8;  // 512 MB: larger than any cache
constexpr std::int64_t grain = 4096;                                  // words
constexpr int passes = 10;

/// Sum of all words, in independent lanes so that additions do not wait for each other.
std::uint64_t sum_words(const std::uint64_t* words, std::int64_t count) {
    std::array<std::uint64_t, 32> lanes{};
    for (std::int64_t i = 0; i < count; i += 32) {
        for (std::size_t lane = 0; lane < lanes.size(); ++lane)
            lanes[lane] += words[i + static_cast<std::int64_t>(lane)];
    }
    std::uint64_t sum = 0;
    for (const std::uint64_t lane : lanes) sum += lane;
    return sum;
}

}  // namespace

double read_bandwidth(core::ThreadPool& pool) {
    runtime::WeightMemory memory;  // as the weights lie: in huge pages
    auto* const words = reinterpret_cast<std::uint64_t*>(memory.take(static_cast<std::size_t>(buffer_words) * 8));
    pool.parallel_for(buffer_words, grain, [&](std::int64_t begin, std::int64_t end) {
        std::fill(words + begin, words + end, std::uint64_t{1});
    });
    std::vector<double> speeds;
    std::atomic<std::uint64_t> sum{0};  // keeps the reads alive
    for (int pass = 0; pass < passes; ++pass) {
        const auto start = std::chrono::steady_clock::now();
        pool.parallel_for(buffer_words, grain,
                          [&](std::int64_t begin, std::int64_t end) { sum += sum_words(words + begin, end - begin); });
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        speeds.push_back(static_cast<double>(buffer_words) * 8 / seconds);
    }
    return sum > 0 ? median(std::move(speeds)) : 0;
}

}  // namespace mha2mla::bench
