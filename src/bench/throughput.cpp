#include "bench/throughput.h"

#include <algorithm>
#include <chrono>

#include "bench/median.h"
#include "core/error.h"
#include "core/random.h"

namespace mha2mla::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void require(bool holds, const char* option, const char* expected) {
    if (!holds)
        throw core::Error({.what = "a benchmark option is out of range", .expected = expected, .where = option});
}

void check(const runtime::Decoder& decoder, const ThroughputOptions& options) {
    require(options.prompt_tokens >= 0, "--prefill", "0 (off) or more tokens");
    require(options.generated_tokens >= 0, "--decode", "0 (off) or more tokens");
    require(options.repetitions > 0, "--repetitions", "1 or more");
    require(!options.depths.empty(), "--depth", "at least one depth");
    require(*std::min_element(options.depths.begin(), options.depths.end()) >= 0, "--depth", "0 or more tokens");
    const auto capacity = decoder.kv_bytes().capacity / decoder.kv_bytes_per_token();
    if (static_cast<std::size_t>(context_tokens(options)) <= capacity) return;
    throw core::Error({.what = "the context is too small for the benchmark",
                       .expected = std::to_string(context_tokens(options)) + " tokens",
                       .got = std::to_string(capacity) + " tokens",
                       .where = "--context",
                       .remedy = "pass a larger --context or a smaller depth"});
}

/// One measurement at one depth; the sequence holds `depth` tokens before and after.
class DepthBench {
public:
    DepthBench(runtime::Decoder& decoder, int depth)
        : decoder_(decoder), sequence_(decoder.new_sequence()), depth_(depth) {
        if (depth > 0) decoder_.forward(sequence_, random_tokens(depth));
    }

    ThroughputResult prefill(int tokens, int repetitions) {
        const auto text = random_tokens(tokens);
        return measure(
            "pp", tokens, repetitions, [&] { decoder_.forward(sequence_, text); }, [] {});
    }

    ThroughputResult decode(int tokens, int repetitions, core::FunctionRef<double()> bytes_per_second) {
        const auto text = random_tokens(tokens);
        const auto decode_text = [&] {
            for (const int token : text) decoder_.forward(sequence_, std::span(&token, 1));
        };
        std::vector<double> bandwidths{bytes_per_second()};
        const auto measure_bandwidth = [&] { bandwidths.push_back(bytes_per_second()); };
        auto result = measure("tg", tokens, repetitions, decode_text, measure_bandwidth);
        result.bytes_per_second = median(std::move(bandwidths));
        return result;
    }

    void warm_up() {
        decode(1, 1, [] { return 0.0; });
    }

private:
    /// `after` runs untimed after every repetition.
    ThroughputResult measure(const char* kind, int tokens, int repetitions, core::FunctionRef<void()> work,
                             core::FunctionRef<void()> after) {
        std::vector<double> speeds;
        ThroughputResult result{.test = kind + std::to_string(tokens), .depth = depth_};
        for (int repetition = 0; repetition < repetitions; ++repetition) {
            const auto start = Clock::now();
            work();
            speeds.push_back(tokens / seconds_since(start));
            result.kv_bytes_allocated = sequence_.kv_bytes().allocated;
            result.kv_bytes_per_token_allocated = static_cast<double>(result.kv_bytes_allocated) / sequence_.tokens();
            sequence_.truncate(depth_);
            after();
        }
        result.tokens_per_second = median(speeds);
        return result;
    }

    std::vector<int> random_tokens(int count) {
        std::vector<int> tokens(static_cast<std::size_t>(count));
        const auto vocab = static_cast<std::uint64_t>(decoder_.config().vocab_size);
        for (int& token : tokens) token = static_cast<int>(random_.below(vocab));
        return tokens;
    }

    runtime::Decoder& decoder_;
    runtime::Sequence sequence_;
    int depth_;
    core::Random random_{1};
};

void add_bound(ThroughputResult& result, const runtime::Decoder& decoder, int tokens) {
    const double mean_context = result.depth + 0.5 * tokens;
    const double bytes = static_cast<double>(decoder.step_weight_bytes()) + decoder.step_cache_bytes(mean_context);
    result.bound_tokens_per_second = result.bytes_per_second / bytes;
    result.share_of_bound =
        result.bound_tokens_per_second > 0 ? result.tokens_per_second / result.bound_tokens_per_second : 0;
}

}  // namespace

int context_tokens(const ThroughputOptions& options) {
    const int depth = options.depths.empty() ? 0 : *std::max_element(options.depths.begin(), options.depths.end());
    return depth + std::max({options.prompt_tokens, options.generated_tokens, 1});
}

std::vector<ThroughputResult> throughput(runtime::Decoder& decoder, const ThroughputOptions& options,
                                         core::FunctionRef<double()> bytes_per_second, core::Progress& progress,
                                         const std::stop_token& stop) {
    check(decoder, options);
    std::vector<ThroughputResult> results;
    progress.begin("bench", static_cast<std::int64_t>(options.depths.size()));
    std::int64_t done = 0;
    for (const int depth : options.depths) {
        core::throw_if_stopped(stop);
        DepthBench bench(decoder, depth);
        bench.warm_up();
        if (options.prompt_tokens > 0) results.push_back(bench.prefill(options.prompt_tokens, options.repetitions));
        core::throw_if_stopped(stop);
        if (options.generated_tokens > 0) {
            results.push_back(bench.decode(options.generated_tokens, options.repetitions, bytes_per_second));
            add_bound(results.back(), decoder, options.generated_tokens);
        }
        progress.update(++done, "depth " + std::to_string(depth));
    }
    progress.end();
    return results;
}

}  // namespace mha2mla::bench
