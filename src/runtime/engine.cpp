#include "runtime/engine.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "cache/page_format.h"
#include "core/error.h"

namespace mha2mla::runtime {

struct Engine::Request {
    RequestId id = 0;
    GenerateOptions options;
    std::vector<int> tokens;  // prompt and output
    int prompt_tokens = 0;
    int reused_tokens = 0;
    Sampler sampler;
    std::optional<Sequence> sequence = {};  // while it runs
    int sampled = 0;                        // the latest token
    FinishReason finish = FinishReason::length;

    int generated_tokens() const { return static_cast<int>(tokens.size()) - prompt_tokens; }
};

/// The pages of running requests, and of finished ones as long as nobody needs the memory.
class Engine::Pages : public PageStore {
public:
    Pages(Decoder& decoder, std::map<RequestId, Request>& requests) : decoder_(decoder), requests_(requests) {}

    std::int64_t free_up(std::int64_t pages) override {
        while (decoder_.free_pages() < pages) {
            const auto oldest = index_.least_recent();
            if (!oldest) break;
            index_.remove(*oldest);
            kept_.erase(*oldest);
        }
        return decoder_.free_pages();
    }

    std::int64_t take_prefix(RequestId id) override {
        Request& request = requests_.at(id);
        const auto match = index_.find(request.tokens);
        if (!match) {
            request.sequence.emplace(decoder_.new_sequence());
            return 0;
        }
        const auto kept = kept_.find(match->holder);
        const Sequence& holder = kept == kept_.end() ? *requests_.at(match->holder).sequence : kept->second;
        request.sequence.emplace(decoder_.fork(holder));
        request.sequence->truncate(static_cast<int>(match->tokens));
        request.reused_tokens = std::min(static_cast<int>(match->tokens), request.prompt_tokens);
        return match->tokens;
    }

    void drop(RequestId id) override {
        index_.remove(id);
        requests_.at(id).sequence.reset();
    }

    /// The request's whole pages can be shared from now on.
    void share(const Request& request) {
        const auto cached = static_cast<std::size_t>(request.sequence->tokens());
        index_.add(request.id, std::span(request.tokens).first(cached));
    }

    /// Keeps the whole pages of a request that is done.
    void retire(Request& request) {
        share(request);
        const int tokens = request.sequence->tokens();
        request.sequence->truncate(tokens - tokens % static_cast<int>(cache::page_tokens));
        if (request.sequence->tokens() == 0) return drop(request.id);
        kept_.emplace(request.id, std::move(*request.sequence));
        index_.retire(request.id);
    }

private:
    Decoder& decoder_;
    std::map<RequestId, Request>& requests_;
    PrefixIndex index_;
    std::map<RequestId, Sequence> kept_;
};

Engine::Engine(Decoder& decoder, core::ThreadPool& pool, int parallel)
    : decoder_(decoder),
      pool_(pool),
      pages_(std::make_unique<Pages>(decoder, requests_)),
      scheduler_({.step_tokens = Decoder::max_batch_tokens,
                  .running = parallel,
                  .page_by_page = decoder.pass_tokens(0) < Decoder::max_batch_tokens},
                 *pages_) {
    feeds_.reserve(static_cast<std::size_t>(parallel));
    generating_.reserve(static_cast<std::size_t>(parallel));
}

Engine::~Engine() = default;

RequestId Engine::submit(const EngineRequest& request) {
    const auto& prompt = request.prompt;
    if (prompt.empty()) throw core::Error({.what = "the prompt has no tokens", .remedy = "pass a longer prompt"});
    decoder_.check(prompt);
    const std::int64_t context = decoder_.context_tokens();
    if (std::ssize(prompt) > context) {
        throw core::Error({.what = "the prompt is longer than the context",
                           .expected = "at most " + std::to_string(context) + " tokens",
                           .got = std::to_string(prompt.size()) + " tokens",
                           .where = "--context",
                           .remedy = "pass a larger --context or a shorter prompt"});
    }
    const RequestId id = next_id_++;
    Request& added = requests_
                         .emplace(id, Request{.id = id,
                                              .options = request.options,
                                              .tokens = prompt,
                                              .prompt_tokens = static_cast<int>(prompt.size()),
                                              .sampler = Sampler(request.options.sampling)})
                         .first->second;
    const std::int64_t most = std::ssize(prompt) + std::max(request.options.max_tokens, 0);
    added.tokens.reserve(static_cast<std::size_t>(std::min(most, context + 1)));
    scheduler_.submit(id, std::ssize(prompt));
    return id;
}

bool Engine::step(core::FunctionRef<void(const EngineResult&)> on_finish) {
    const auto work = scheduler_.next_step();
    if (work.empty()) return false;
    run(work);
    ++stats_.steps;
    for (Request* const request : generating_) {
        if (take_in_sampled(*request)) {
            scheduler_.append(request->id);
        } else {
            finish(*request, on_finish);
        }
    }
    return true;
}

void Engine::run(std::span<const ScheduledTokens> work) {
    feeds_.clear();
    generating_.clear();
    for (const ScheduledTokens& part : work) {
        Request& request = requests_.at(part.id);
        const auto tokens = std::span<const int>(request.tokens)
                                .subspan(static_cast<std::size_t>(part.first), static_cast<std::size_t>(part.count));
        feeds_.push_back({.sequence = &*request.sequence, .tokens = tokens, .logits = part.ends_text ? 1 : 0});
        if (part.ends_text) generating_.push_back(&request);
    }
    const auto logits = decoder_.forward(feeds_);
    for (const ScheduledTokens& part : work) {
        const Request& request = requests_.at(part.id);
        if (part.count == 1 && part.first >= request.prompt_tokens) continue;
        stats_.prompt_tokens += part.count;
        pages_->share(request);
    }
    sample(logits);
}

void Engine::sample(std::span<const float> logits) {
    if (generating_.empty()) return;
    const std::size_t vocab = logits.size() / generating_.size();
    pool_.parallel_for(std::ssize(generating_), 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
            Request& request = *generating_[i];
            request.sampled = request.sampler.sample(logits.subspan(i * vocab, vocab), request.tokens,
                                                     request.options.excluded(request.generated_tokens()));
        }
    });
}

/// False when the request is done.
bool Engine::take_in_sampled(Request& request) {
    const auto& stops = request.options.stop_tokens;
    request.finish = FinishReason::length;
    if (request.options.max_tokens <= 0) return false;
    if (std::find(stops.begin(), stops.end(), request.sampled) != stops.end()) {
        request.finish = FinishReason::stop;
        return false;
    }
    request.tokens.push_back(request.sampled);
    ++stats_.generated_tokens;
    if (request.generated_tokens() == request.options.max_tokens) return false;
    request.finish = FinishReason::context;
    return std::ssize(request.tokens) <= decoder_.context_tokens();
}

void Engine::finish(Request& request, core::FunctionRef<void(const EngineResult&)> on_finish) {
    scheduler_.finish(request.id);
    pages_->retire(request);
    stats_.reused_tokens += request.reused_tokens;
    on_finish({.id = request.id,
               .finish = request.finish,
               .prompt_tokens = request.prompt_tokens,
               .reused_tokens = request.reused_tokens,
               .generated = std::span(request.tokens).subspan(static_cast<std::size_t>(request.prompt_tokens))});
    requests_.erase(request.id);
}

EngineStats Engine::stats() const {
    EngineStats stats = stats_;
    stats.preemptions = scheduler_.preemptions();
    return stats;
}

}  // namespace mha2mla::runtime
