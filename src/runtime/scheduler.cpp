#include "runtime/scheduler.h"

#include <algorithm>

#include "cache/page_format.h"
#include "core/error.h"

namespace mha2mla::runtime {
namespace {

std::int64_t pages_of(std::int64_t tokens) { return (tokens + cache::page_tokens - 1) / cache::page_tokens; }

/// Pages that `count` tokens more take.
std::int64_t new_pages(std::int64_t tokens, std::int64_t count) { return pages_of(tokens + count) - pages_of(tokens); }

template <typename Requests>
auto find(Requests& requests, RequestId id) {
    const auto found = std::find_if(requests.begin(), requests.end(), [id](const auto& r) { return r.id == id; });
    core::invariant(found != requests.end(), "the request is running");
    return found;
}

template <typename Requests, typename Request>
void insert_by_age(Requests& requests, const Request& request) {
    const auto younger = std::upper_bound(requests.begin(), requests.end(), request,
                                          [](const auto& a, const auto& b) { return a.id < b.id; });
    requests.insert(younger, request);
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, PageStore& store) : limits_(limits), store_(store) {
    core::invariant(limits.running > 0 && limits.running <= limits.step_tokens, "each running request has a row");
    running_.reserve(static_cast<std::size_t>(limits.running));
    step_.reserve(static_cast<std::size_t>(limits.running));
}

void Scheduler::submit(RequestId id, std::int64_t tokens) {
    core::invariant(tokens > 0, "a request has tokens");
    const std::size_t all = waiting_.size() + 1 + static_cast<std::size_t>(limits_.running);  // as some may come back
    if (waiting_.capacity() < all) waiting_.reserve(2 * all);
    insert_by_age(waiting_, Request{.id = id, .known = tokens});
}

std::span<const ScheduledTokens> Scheduler::next_step() {
    step_.clear();
    step_tokens_ = claimed_pages_ = 0;
    schedule_generating();
    schedule_prompts();
    admit();
    // Prompts alone may hold all pages: the youngest gives way until one goes on.
    while (step_.empty() && !running_.empty()) {
        preempt_youngest();
        schedule_prompts();
        if (running_.empty()) admit();
    }
    core::invariant(!step_.empty() || waiting_.empty(), "the oldest request fits into the cache");
    return step_;
}

void Scheduler::append(RequestId id) { ++find(running_, id)->known; }

void Scheduler::finish(RequestId id) {
    running_.erase(find(running_, id));
    admission_blocked_ = false;
}

void Scheduler::schedule_generating() {
    for (std::size_t i = 0; i < running_.size(); ++i) {
        if (running_[i].missing() != 1) continue;
        // The youngest are at the end and not scheduled yet; the last one gives way to itself.
        while (i < running_.size() && !claim(new_pages(running_[i].cached, 1))) preempt_youngest();
        if (i < running_.size()) schedule(running_[i], 1);
    }
}

void Scheduler::schedule_prompts() {
    for (Request& request : running_) {
        if (request.missing() == 0 || step_tokens_ == limits_.step_tokens) continue;
        const std::int64_t count = fitting_tokens(request);
        if (count > 0 && claim(new_pages(request.cached, count))) schedule(request, count);
    }
}

void Scheduler::admit() {
    if (running_.empty()) admission_blocked_ = false;
    while (!waiting_.empty() && !admission_blocked_ && running() < limits_.running &&
           step_tokens_ < limits_.step_tokens) {
        Request request = waiting_.front();
        if (!admit(request)) {
            admission_blocked_ = true;
            return;
        }
        waiting_.erase(waiting_.begin());
        insert_by_age(running_, request);
    }
}

bool Scheduler::admit(Request& request) {
    std::int64_t promised = 0;
    for (const Request& other : running_) promised += new_pages(other.cached, other.missing());
    request.cached = store_.take_prefix(request.id);
    const std::int64_t needed = claimed_pages_ + promised + new_pages(request.cached, request.missing());
    if (store_.free_up(needed) < needed) {
        store_.drop(request.id);
        return false;
    }
    const std::int64_t count = largest_part(request);
    claimed_pages_ += new_pages(request.cached, count);
    schedule(request, count);
    return true;
}

bool Scheduler::claim(std::int64_t pages) {
    if (pages == 0) return true;
    if (store_.free_up(claimed_pages_ + pages) < claimed_pages_ + pages) return false;
    claimed_pages_ += pages;
    return true;
}

/// Tokens of a prompt that the step takes.
std::int64_t Scheduler::largest_part(const Request& request) const {
    const std::int64_t count = std::min(limits_.step_tokens - step_tokens_, request.missing());
    return limits_.page_by_page ? std::min(count, cache::page_tokens - request.cached % cache::page_tokens) : count;
}

/// Tokens of a prompt that the step and the free pages take.
std::int64_t Scheduler::fitting_tokens(const Request& request) {
    const std::int64_t count = largest_part(request);
    const std::int64_t wanted = claimed_pages_ + new_pages(request.cached, count);
    const std::int64_t lacking = std::max(wanted - store_.free_up(wanted), std::int64_t{0});
    const std::int64_t pages = pages_of(request.cached + count) - lacking;
    return lacking == 0 ? count : std::min(count, pages * cache::page_tokens - request.cached);
}

void Scheduler::schedule(Request& request, std::int64_t count) {
    step_.push_back(
        {.id = request.id, .first = request.cached, .count = count, .ends_text = count == request.missing()});
    request.cached += count;
    step_tokens_ += count;
}

void Scheduler::preempt_youngest() {
    Request request = running_.back();
    running_.pop_back();
    store_.drop(request.id);
    request.cached = 0;
    insert_by_age(waiting_, request);
    admission_blocked_ = true;
    ++preemptions_;
}

}  // namespace mha2mla::runtime
