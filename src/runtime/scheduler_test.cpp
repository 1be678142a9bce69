#include "runtime/scheduler.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <map>
#include <numeric>

#include "cache/page_format.h"
#include "core/random.h"

namespace mha2mla::runtime {
namespace {

std::int64_t pages_of(std::int64_t tokens) { return (tokens + 63) / 64; }

/// Numbers instead of pages. Checks what every step must keep to, and does what an engine does.
class Simulation : public PageStore {
public:
    Simulation(SchedulerLimits limits, std::int64_t pages)
        : limits_(limits), pages_(pages), scheduler_(limits, *this) {}

    std::int64_t free_up(std::int64_t pages) override {
        while (free() < pages && kept_ > 0) --kept_;
        return free();
    }
    std::int64_t take_prefix(RequestId id) override {
        cached_[id] = prefix_[id];
        return prefix_[id];
    }
    void drop(RequestId id) override { cached_.erase(id); }

    /// `prefix`: tokens of it whose pages are its own but need no computing.
    void submit(RequestId id, std::int64_t prompt, std::int64_t generated, std::int64_t prefix = 0) {
        left_[id] = generated;
        known_[id] = prompt;
        prefix_[id] = prefix;
        scheduler_.submit(id, prompt);
    }
    void keep(std::int64_t pages) { kept_ = pages; }

    std::vector<ScheduledTokens> step() {
        const auto work = scheduler_.next_step();
        const std::vector<ScheduledTokens> parts(work.begin(), work.end());
        std::int64_t tokens = 0;
        for (const auto& part : parts) {
            EXPECT_EQ(part.first, cached_.at(part.id)) << "tokens follow each other";
            EXPECT_GT(part.count, 0);
            EXPECT_EQ(part.ends_text, part.first + part.count == known_.at(part.id));
            cached_[part.id] += part.count;
            tokens += part.count;
        }
        EXPECT_LE(tokens, limits_.step_tokens);
        EXPECT_LE(std::ssize(cached_), limits_.running);
        EXPECT_GE(free(), 0) << "more pages were promised than there are";
        for (const auto& part : parts) {
            if (part.ends_text) generate(part.id);
        }
        return parts;
    }

    /// Runs to the end; the requests in the order in which they ended.
    std::vector<RequestId> run() {
        for (int steps = 0; !step().empty(); ++steps) {
            if (steps == 100'000) ADD_FAILURE() << "it does not end";
        }
        EXPECT_TRUE(cached_.empty());
        return ended_;
    }

    const Scheduler& scheduler() const { return scheduler_; }

private:
    std::int64_t free() const {
        std::int64_t held = kept_;
        for (const auto& [id, cached] : cached_) held += pages_of(cached);
        return pages_ - held;
    }

    void generate(RequestId id) {
        ++known_[id];
        if (--left_[id] > 0) return scheduler_.append(id);
        ended_.push_back(id);
        cached_.erase(id);
        scheduler_.finish(id);
    }

    SchedulerLimits limits_;
    std::int64_t pages_;
    std::int64_t kept_ = 0;  // of prefixes
    std::map<RequestId, std::int64_t> cached_, known_, left_, prefix_;
    std::vector<RequestId> ended_;
    Scheduler scheduler_;
};

/// {request, tokens} of a step.
std::vector<std::pair<RequestId, std::int64_t>> counts(const std::vector<ScheduledTokens>& parts) {
    std::vector<std::pair<RequestId, std::int64_t>> counts;
    for (const auto& part : parts) counts.emplace_back(part.id, part.count);
    return counts;
}

using Counts = std::vector<std::pair<RequestId, std::int64_t>>;

TEST(Scheduler, GeneratingComesFirstAndPromptsFillTheStep) {
    Simulation simulation({.step_tokens = 100, .running = 4}, 1000);
    simulation.submit(0, 30, 10);
    simulation.submit(1, 150, 10);
    simulation.submit(2, 20, 10);
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 30}, {1, 70}}));
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 1}, {1, 80}, {2, 19}}));
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 1}, {1, 1}, {2, 1}})) << "the rest of a prompt is one token";
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 1}, {1, 1}, {2, 1}}));
}

TEST(Scheduler, PageByPageNoPartCrossesTheEndOfItsPage) {
    Simulation simulation({.step_tokens = 100, .running = 4, .page_by_page = true}, 1000);
    simulation.submit(0, 130, 1);
    simulation.submit(1, 70, 1);
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 64}, {1, 36}}));
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 64}, {1, 28}}));
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 2}, {1, 6}}));
}

TEST(Scheduler, RunsNoMoreThanTheLimitAndAdmitsTheNextWhenOneEnds) {
    Simulation simulation({.step_tokens = 512, .running = 2}, 1000);
    for (RequestId id = 0; id < 5; ++id) simulation.submit(id, 10, id == 0 ? 2 : 4);
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 10}, {1, 10}}));
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 1}, {1, 1}})) << "request 0 ends";
    EXPECT_EQ(counts(simulation.step()), (Counts{{1, 1}, {2, 10}}));
    EXPECT_EQ(simulation.run(), (std::vector<RequestId>{0, 1, 2, 3, 4}));
}

TEST(Scheduler, AdmitsByFreePagesCountingWhatOthersStillNeed) {
    Simulation simulation({.step_tokens = 64, .running = 4}, 10);
    simulation.submit(0, 6 * 64, 1);
    simulation.submit(1, 5 * 64, 1);
    simulation.submit(2, 64, 1);
    for (int chunk = 0; chunk < 6; ++chunk) {
        EXPECT_EQ(counts(simulation.step()), (Counts{{0, 64}})) << "one page of ten is used, but six are promised";
    }
    EXPECT_EQ(counts(simulation.step()), (Counts{{1, 64}}));
    EXPECT_EQ(simulation.run(), (std::vector<RequestId>{0, 1, 2}));
    EXPECT_EQ(simulation.scheduler().preemptions(), 0);
}

TEST(Scheduler, TheYoungestGivesWayAndIsComputedAgain) {
    Simulation simulation({.step_tokens = 512, .running = 3}, 4);
    simulation.submit(0, 60, 100);
    simulation.submit(1, 60, 100);
    simulation.submit(2, 60, 100);
    const auto ended = simulation.run();  // each grows to 3 pages of the 4
    EXPECT_EQ(ended, (std::vector<RequestId>{0, 1, 2})) << "the oldest always goes on";
    EXPECT_GT(simulation.scheduler().preemptions(), 0);
}

TEST(Scheduler, KeptPrefixesAreUsedAndGivenUpForRequests) {
    Simulation simulation({.step_tokens = 512, .running = 2}, 5);
    simulation.keep(4);
    simulation.submit(0, 100, 3, 64);
    const auto first = simulation.step();
    ASSERT_EQ(first.size(), 1u);
    EXPECT_EQ(first[0].first, 64);
    EXPECT_EQ(first[0].count, 36);
    simulation.submit(1, 3 * 64, 2);
    EXPECT_EQ(counts(simulation.step()), (Counts{{0, 1}, {1, 3 * 64}})) << "all five pages are in use now";
    simulation.run();
}

TEST(Scheduler, AnyMixEndsWithinThePages) {
    core::Random random(3);
    for (int trial = 0; trial < 200; ++trial) {
        const auto below = [&](std::uint64_t bound) { return 1 + static_cast<std::int64_t>(random.below(bound)); };
        const std::int64_t pages = 3 + below(12);
        const std::int64_t running = below(6);
        Simulation simulation({.step_tokens = running + below(200), .running = running}, pages);
        const std::int64_t requests = below(12);
        for (RequestId id = 0; id < requests; ++id) {
            const std::int64_t prompt = below(static_cast<std::uint64_t>(pages * 64 / 2));
            simulation.submit(id, prompt, below(static_cast<std::uint64_t>(pages * 64 - prompt)));
        }
        EXPECT_EQ(std::ssize(simulation.run()), requests) << "trial " << trial;
    }
}

}  // namespace
}  // namespace mha2mla::runtime
