#include "bench/throughput.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace mha2mla::bench {
namespace {

/// Keeps what was reported.
class RecordedProgress : public core::Progress {
public:
    void update(std::int64_t done, const std::string&) override { steps.push_back(done); }
    std::vector<std::int64_t> steps;
};

class Throughput : public testing::Test {
protected:
    std::vector<ThroughputResult> run(const ThroughputOptions& options, double bytes_per_second) {
        const auto bandwidth = [&] { return bytes_per_second; };
        return throughput(decoder_, options, bandwidth, progress_, stop_.get_token());
    }

    checkpoint::Checkpoint model_ = checkpoint::Checkpoint::open(MHA2MLA_FIXTURES "/models/tiny-gqa");
    core::Progress silent_;
    RecordedProgress progress_;
    core::ThreadPool pool_{2};
    runtime::Decoder decoder_{model_, {.context_tokens = 256}, pool_, silent_};
    std::stop_source stop_;
};

TEST_F(Throughput, MeasuresEveryTestAtEveryDepth) {
    const auto results = run({.prompt_tokens = 16, .generated_tokens = 8, .depths = {0, 100}, .repetitions = 2}, 1e9);
    ASSERT_EQ(results.size(), 4u);
    EXPECT_EQ(progress_.steps, (std::vector<std::int64_t>{1, 2}));
    EXPECT_EQ(results[0].test, "pp16");
    EXPECT_EQ(results[3].test, "tg8");
    EXPECT_EQ(results[3].depth, 100);
    for (const auto& result : results) EXPECT_GT(result.tokens_per_second, 0) << result.test;
    // 108 tokens lie in two pages.
    EXPECT_EQ(results[3].kv_bytes_allocated, 128 * decoder_.kv_bytes_per_token());
    EXPECT_DOUBLE_EQ(results[3].kv_bytes_per_token_allocated,
                     128.0 / 108 * static_cast<double>(decoder_.kv_bytes_per_token()));
    const double step_bytes =
        static_cast<double>(decoder_.step_weight_bytes()) + 104 * static_cast<double>(decoder_.kv_bytes_per_token());
    EXPECT_EQ(results[3].bytes_per_second, 1e9);
    EXPECT_DOUBLE_EQ(results[3].bound_tokens_per_second, 1e9 / step_bytes);
    EXPECT_DOUBLE_EQ(results[3].share_of_bound, results[3].tokens_per_second / results[3].bound_tokens_per_second);
    EXPECT_EQ(decoder_.kv_bytes().allocated, 0u) << "the benchmark leaves the cache empty";
}

TEST_F(Throughput, SequencesTogetherCountTogether) {
    runtime::Decoder decoder(model_, {.context_tokens = 128, .sequences = 3}, pool_, silent_);
    const auto results = throughput(
        decoder, {.prompt_tokens = 0, .generated_tokens = 4, .depths = {65}, .parallel = 3, .repetitions = 1},
        [] { return 1e9; }, progress_, stop_.get_token());
    ASSERT_EQ(results.size(), 1u);
    EXPECT_EQ(results[0].test, "tg4x3");
    EXPECT_EQ(results[0].kv_bytes_allocated, 3 * 128 * decoder.kv_bytes_per_token());
    const double step_bytes =
        static_cast<double>(decoder.step_weight_bytes()) + 3 * 67 * static_cast<double>(decoder.kv_bytes_per_token());
    EXPECT_DOUBLE_EQ(results[0].bound_tokens_per_second, 3e9 / step_bytes);
    EXPECT_EQ(decoder.kv_bytes().allocated, 0u);
}

TEST_F(Throughput, LeavesOutWhatIsNotAsked) {
    const auto results = run({.prompt_tokens = 0, .generated_tokens = 4, .repetitions = 1}, 0);
    ASSERT_EQ(results.size(), 1u);
    EXPECT_EQ(results[0].share_of_bound, 0);
}

TEST_F(Throughput, RefusesOptionsThatCannotBeMeasured) {
    EXPECT_THROW(run({.depths = {250}}, 0), core::Error);
    EXPECT_THROW(run({.depths = {}}, 0), core::Error);
    EXPECT_THROW(run({.depths = {-1}}, 0), core::Error);
    EXPECT_THROW(run({.parallel = 0}, 0), core::Error);
    EXPECT_THROW(run({.prompt_tokens = 0, .generated_tokens = 200, .parallel = 2}, 0), core::Error)
        << "a cache for one";
    EXPECT_THROW(run({.repetitions = 0}, 0), core::Error);
    EXPECT_THROW(run({.prompt_tokens = -1}, 0), core::Error);
}

}  // namespace
}  // namespace mha2mla::bench
