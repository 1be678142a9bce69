#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/function_ref.h"
#include "core/thread_pool.h"
#include "runtime/decoder.h"
#include "runtime/generate.h"
#include "runtime/prefix_index.h"
#include "runtime/sampler.h"
#include "runtime/scheduler.h"

namespace mha2mla::runtime {

/// A text to continue.
struct EngineRequest {
    std::vector<int> prompt;
    GenerateOptions options = {};
};

struct EngineResult {
    RequestId id = 0;
    FinishReason finish = FinishReason::length;
    int prompt_tokens = 0;
    int reused_tokens = 0;           ///< of the prompt, whose cache another request had left
    std::span<const int> generated;  ///< valid during the call that hands it over
};

struct EngineStats {
    std::int64_t steps = 0;
    std::int64_t prompt_tokens = 0;  ///< computed; those of preempted requests count again
    std::int64_t reused_tokens = 0;  ///< not computed
    std::int64_t generated_tokens = 0;
    std::int64_t preemptions = 0;
};

/// Continues any number of texts, many at once: every step takes in one token of each text that is being generated and
/// the next parts of prompts (scheduler.h). Requests that begin alike share their pages; those of finished requests
/// stay until their memory is needed. A request's result does not depend on the others but for rounding. One call at a
/// time.
class Engine {
public:
    /// `parallel`: requests that run at a time. Decoder and pool must outlive the engine.
    Engine(Decoder& decoder, core::ThreadPool& pool, int parallel);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    /// Returns the request's number; the first is 0. Throws Error for a prompt that is empty, too long, or not of the
    /// model's tokens.
    RequestId submit(const EngineRequest& request);

    /// One pass through the layers, one token for each request whose text it ends. Hands over the requests that this
    /// finished. Returns false, and does nothing, when no request is left. Allocates nothing while no request comes,
    /// leaves, or reads its prompt.
    bool step(core::FunctionRef<void(const EngineResult&)> on_finish);

    EngineStats stats() const;

private:
    class Pages;
    struct Request;

    void run(std::span<const ScheduledTokens> work);
    void sample(std::span<const float> logits);
    bool take_in_sampled(Request& request);
    void finish(Request& request, core::FunctionRef<void(const EngineResult&)> on_finish);

    Decoder& decoder_;
    core::ThreadPool& pool_;
    std::map<RequestId, Request> requests_;
    std::unique_ptr<Pages> pages_;
    Scheduler scheduler_;
    std::vector<Feed> feeds_;           // of the step
    std::vector<Request*> generating_;  // those whose logits the step gives
    RequestId next_id_ = 0;
    EngineStats stats_;
};

}  // namespace mha2mla::runtime
