#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mha2mla::runtime {

/// Requests are numbered as they come: a smaller number is older.
using RequestId = std::int64_t;

/// What the scheduler asks of the cache.
class PageStore {
public:
    virtual ~PageStore() = default;
    /// Sees to it that `pages` pages are free, giving up kept prefixes as far as it must. Returns how many are free:
    /// fewer only where running requests hold the rest.
    virtual std::int64_t free_up(std::int64_t pages) = 0;
    /// Gives a request that has no pages the kept pages that its text begins with. Returns their tokens: whole pages,
    /// fewer tokens than the text has.
    virtual std::int64_t take_prefix(RequestId id) = 0;
    /// Takes a request's pages back.
    virtual void drop(RequestId id) = 0;
};

struct SchedulerLimits {
    std::int64_t step_tokens = 512;  ///< in one pass through the layers
    std::int64_t running = 8;        ///< requests that have pages at a time; at most step_tokens
    bool page_by_page = false;       ///< a step takes in no tokens of a request beyond the end of its page
};

/// The next tokens of a request that a step takes in.
struct ScheduledTokens {
    RequestId id = 0;
    std::int64_t first = 0;  ///< position of the first one
    std::int64_t count = 0;
    bool ends_text = false;  ///< no known token follows: the logits of the last one are wanted
};

/// Decides what goes into each step: first the requests that generate, one token each, then the rest of prompts, chunk
/// by chunk, then new requests, the oldest first. A request is admitted when its whole text fits beside those that are
/// admitted already. What is generated later may still fill the cache: then the youngest request loses its pages,
/// waits, and is computed again. Knows no model and no memory; an oldest request always goes on, so every request ends.
class Scheduler {
public:
    /// `store` must outlive the scheduler.
    Scheduler(const SchedulerLimits& limits, PageStore& store);

    /// A new request, younger than all others. Its text and what will be generated must fit into an empty cache.
    void submit(RequestId id, std::int64_t tokens);
    /// What the next step takes in, as if it were done when this returns; empty when no request is left. Allocates
    /// nothing.
    std::span<const ScheduledTokens> next_step();
    /// One more token of a running request is known.
    void append(RequestId id);
    /// A running request is done; its pages are the store's again.
    void finish(RequestId id);

    std::int64_t running() const { return static_cast<std::int64_t>(running_.size()); }
    std::int64_t waiting() const { return static_cast<std::int64_t>(waiting_.size()); }
    std::int64_t preemptions() const { return preemptions_; }

private:
    struct Request {
        RequestId id = 0;
        std::int64_t known = 0;   // tokens
        std::int64_t cached = 0;  // of these, once the planned step is done

        std::int64_t missing() const { return known - cached; }
    };
    using Requests = std::vector<Request>;  // the oldest first

    void schedule_generating();
    void schedule_prompts();
    void admit();
    bool admit(Request& request);
    bool claim(std::int64_t pages);
    std::int64_t largest_part(const Request& request) const;
    std::int64_t fitting_tokens(const Request& request);
    void schedule(Request& request, std::int64_t count);
    void preempt_youngest();

    SchedulerLimits limits_;
    PageStore& store_;
    Requests running_;
    Requests waiting_;
    std::vector<ScheduledTokens> step_;
    std::int64_t step_tokens_ = 0;
    std::int64_t claimed_pages_ = 0;  // of the step, not taken yet
    bool admission_blocked_ = false;  // until pages are given back
    std::int64_t preemptions_ = 0;
};

}  // namespace mha2mla::runtime
