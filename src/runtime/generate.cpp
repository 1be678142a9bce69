#include "runtime/generate.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"

namespace mha2mla::runtime {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t prefill_tokens = 512;  // between two looks at the stop request

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// One call of generate.
class Generation {
public:
    Generation(Decoder& decoder, Sequence& sequence, const GenerateOptions& options)
        : decoder_(decoder), sequence_(sequence), options_(options), sampler_(options.sampling) {}

    GenerateStats run(std::span<const int> prompt, const std::function<void(int)>& emit, const std::stop_token& stop);

private:
    bool prefill(std::span<const int> prompt, const std::stop_token& stop);
    FinishReason decode(const std::function<void(int)>& emit, const std::stop_token& stop);
    bool ends_text(int token) const;

    Decoder& decoder_;
    Sequence& sequence_;
    const GenerateOptions& options_;
    Sampler sampler_;
    std::vector<int> history_;  // prompt and output
    std::span<const float> logits_;
    GenerateStats stats_;
};

GenerateStats Generation::run(std::span<const int> prompt, const std::function<void(int)>& emit,
                              const std::stop_token& stop) {
    history_.reserve(prompt.size() + static_cast<std::size_t>(std::max(options_.max_tokens, 0)));
    history_.assign(prompt.begin(), prompt.end());
    const auto prefill_start = Clock::now();
    const bool complete = prefill(prompt, stop);
    stats_.prefill_seconds = seconds_since(prefill_start);
    const auto decode_start = Clock::now();
    stats_.finish = complete ? decode(emit, stop) : FinishReason::cancelled;
    stats_.decode_seconds = seconds_since(decode_start);
    return stats_;
}

/// Returns false when stopped.
bool Generation::prefill(std::span<const int> prompt, const std::stop_token& stop) {
    while (!prompt.empty()) {
        if (stop.stop_requested()) return false;
        const auto part = prompt.first(std::min(prefill_tokens, prompt.size()));
        logits_ = decoder_.forward(sequence_, part);
        stats_.prompt_tokens += static_cast<int>(part.size());
        prompt = prompt.subspan(part.size());
    }
    return true;
}

FinishReason Generation::decode(const std::function<void(int)>& emit, const std::stop_token& stop) {
    while (stats_.generated_tokens < options_.max_tokens) {
        if (stop.stop_requested()) return FinishReason::cancelled;
        const int token = sampler_.sample(logits_, history_, options_.excluded(stats_.generated_tokens));
        if (ends_text(token)) return FinishReason::stop;
        emit(token);
        history_.push_back(token);
        if (++stats_.generated_tokens == options_.max_tokens) break;
        if (decoder_.room(sequence_) < 1) return FinishReason::context;
        logits_ = decoder_.forward(sequence_, std::span(&token, 1));
        ++stats_.decode_steps;
    }
    return FinishReason::length;
}

bool Generation::ends_text(int token) const {
    const auto& stops = options_.stop_tokens;
    return std::find(stops.begin(), stops.end(), token) != stops.end();
}

void check_room(const Decoder& decoder, const Sequence& sequence, std::span<const int> prompt) {
    if (prompt.empty()) throw core::Error({.what = "the prompt has no tokens", .remedy = "pass a longer prompt"});
    const std::int64_t room = decoder.room(sequence);
    if (static_cast<std::int64_t>(prompt.size()) <= room) return;
    throw core::Error({.what = "the prompt is longer than the context",
                       .expected = "at most " + std::to_string(room) + " tokens",
                       .got = std::to_string(prompt.size()) + " tokens",
                       .where = "--context",
                       .remedy = "pass a larger --context or a shorter prompt"});
}

}  // namespace

GenerateStats generate(Decoder& decoder, Sequence& sequence, std::span<const int> prompt,
                       const GenerateOptions& options, const std::function<void(int token)>& emit,
                       const std::stop_token& stop) {
    check_room(decoder, sequence, prompt);
    return Generation(decoder, sequence, options).run(prompt, emit, stop);
}

}  // namespace mha2mla::runtime
