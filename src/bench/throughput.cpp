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

void check_tokens(std::int64_t held, std::int64_t needed) {
    if (needed <= held) return;
    throw core::Error({.what = "the context is too small for the benchmark",
                       .expected = std::to_string(needed) + " tokens",
                       .got = std::to_string(held) + " tokens",
                       .where = "--context",
                       .remedy = "pass a larger --context or a smaller depth"});
}

void check(const runtime::Decoder& decoder, const ThroughputOptions& options) {
    require(options.prompt_tokens >= 0, "--prefill", "0 (off) or more tokens");
    require(options.generated_tokens >= 0, "--decode", "0 (off) or more tokens");
    require(options.repetitions > 0, "--repetitions", "1 or more");
    require(!options.depths.empty(), "--depth", "at least one depth");
    require(*std::min_element(options.depths.begin(), options.depths.end()) >= 0, "--depth", "0 or more tokens");
    require(options.parallel > 0 && options.parallel <= runtime::Decoder::max_batch_tokens, "--parallel",
            "1 or more sequences, at most a batch");
    check_tokens(decoder.context_tokens(), context_tokens(options));
    check_tokens(decoder.capacity_tokens(), std::int64_t{context_tokens(options)} * options.parallel);
}

/// One measurement at one depth; the sequences hold `depth` tokens before and after.
class DepthBench {
public:
    DepthBench(runtime::Decoder& decoder, int depth, int parallel) : decoder_(decoder), depth_(depth) {
        for (int i = 0; i < parallel; ++i) {
            sequences_.push_back(decoder.new_sequence());
            if (depth > 0) decoder_.forward(sequences_.back(), random_tokens(depth));
        }
    }

    ThroughputResult prefill(int tokens, int repetitions) {
        const auto text = random_tokens(tokens);
        return measure(
            {.test = "pp" + std::to_string(tokens), .depth = depth_}, {tokens, repetitions},
            [&] { decoder_.forward(sequences_.front(), text); }, [] {});
    }

    ThroughputResult decode(int tokens, int repetitions, core::FunctionRef<double()> bytes_per_second) {
        std::vector<runtime::Sequence*> all;
        for (auto& sequence : sequences_) all.push_back(&sequence);
        const auto text = random_tokens(tokens * static_cast<int>(all.size()));
        const auto decode_text = [&] {
            for (std::size_t i = 0; i < text.size(); i += all.size()) {
                decoder_.decode_step(all, std::span(text).subspan(i, all.size()));
            }
        };
        std::vector<double> bandwidths{bytes_per_second()};
        const auto measure_bandwidth = [&] { bandwidths.push_back(bytes_per_second()); };
        const std::string parallel = all.size() == 1 ? "" : "x" + std::to_string(all.size());
        auto result = measure({.test = "tg" + std::to_string(tokens) + parallel, .depth = depth_},
                              {static_cast<int>(text.size()), repetitions}, decode_text, measure_bandwidth);
        result.bytes_per_second = median(std::move(bandwidths));
        return result;
    }

    void warm_up() {
        decode(1, 1, [] { return 0.0; });
    }

private:
    struct Amount {
        int tokens;  // of a repetition
        int repetitions;
    };

    /// `after` runs untimed after every repetition.
    ThroughputResult measure(ThroughputResult result, Amount amount, core::FunctionRef<void()> work,
                             core::FunctionRef<void()> after) {
        std::vector<double> speeds;
        for (int repetition = 0; repetition < amount.repetitions; ++repetition) {
            const auto start = Clock::now();
            work();
            speeds.push_back(amount.tokens / seconds_since(start));
            add_cache_bytes(result);
            for (auto& sequence : sequences_) sequence.truncate(depth_);
            after();
        }
        result.tokens_per_second = median(speeds);
        return result;
    }

    void add_cache_bytes(ThroughputResult& result) const {
        std::int64_t tokens = 0;
        result.kv_bytes_allocated = 0;
        for (const auto& sequence : sequences_) {
            result.kv_bytes_allocated += sequence.kv_bytes().allocated;
            tokens += sequence.tokens();
        }
        result.kv_bytes_per_token_allocated =
            static_cast<double>(result.kv_bytes_allocated) / static_cast<double>(tokens);
    }

    std::vector<int> random_tokens(int count) {
        std::vector<int> tokens(static_cast<std::size_t>(count));
        const auto vocab = static_cast<std::uint64_t>(decoder_.config().vocab_size);
        for (int& token : tokens) token = static_cast<int>(random_.below(vocab));
        return tokens;
    }

    runtime::Decoder& decoder_;
    std::vector<runtime::Sequence> sequences_;
    int depth_;
    core::Random random_{1};
};

void add_bound(ThroughputResult& result, const runtime::Decoder& decoder, const ThroughputOptions& options) {
    const double mean_context = result.depth + 0.5 * options.generated_tokens;
    const double bytes =
        static_cast<double>(decoder.step_weight_bytes()) + options.parallel * decoder.step_cache_bytes(mean_context);
    result.bound_tokens_per_second = options.parallel * result.bytes_per_second / bytes;
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
        DepthBench bench(decoder, depth, options.parallel);
        bench.warm_up();
        if (options.prompt_tokens > 0) results.push_back(bench.prefill(options.prompt_tokens, options.repetitions));
        core::throw_if_stopped(stop);
        if (options.generated_tokens > 0) {
            results.push_back(bench.decode(options.generated_tokens, options.repetitions, bytes_per_second));
            add_bound(results.back(), decoder, options);
        }
        progress.update(++done, "depth " + std::to_string(depth));
    }
    progress.end();
    return results;
}

}  // namespace mha2mla::bench
