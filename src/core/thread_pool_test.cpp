#include "core/thread_pool.h"

#include <chrono>
#include <gtest/gtest.h>
#include <stdexcept>

namespace mha2mla::core {
namespace {

TEST(ThreadPool, RunsEachWorkerOnce) {
    for (const int threads : {1, 2, 5}) {
        ThreadPool pool(threads);
        ASSERT_EQ(pool.size(), threads);
        std::vector<std::atomic<int>> calls(static_cast<std::size_t>(threads));
        for (int round = 0; round < 200; ++round)
            pool.run([&](int worker) { ++calls[static_cast<std::size_t>(worker)]; });
        for (const auto& count : calls) EXPECT_EQ(count, 200);
    }
}

TEST(ThreadPool, CallerIsWorkerZero) {
    ThreadPool pool(3);
    const auto caller = std::this_thread::get_id();
    std::atomic<int> wrong{0};
    pool.run([&](int worker) { wrong += (std::this_thread::get_id() == caller) != (worker == 0); });
    EXPECT_EQ(wrong, 0);
}

TEST(ThreadPool, SplitsIntoWholeGrains) {
    ThreadPool pool(3);
    for (const std::int64_t count : {0, 1, 7, 8, 9, 24, 25, 100}) {
        for (const std::int64_t grain : {1, 8}) {
            std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
            std::atomic<int> misplaced{0};
            pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
                misplaced += begin % grain != 0 || (end % grain != 0 && end != count) || begin >= end;
                for (auto i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
            });
            EXPECT_EQ(misplaced, 0) << count << " " << grain;
            for (const auto& times : seen) EXPECT_EQ(times, 1) << count << " " << grain;
        }
    }
}

TEST(ThreadPool, RethrowsAndStaysUsable) {
    ThreadPool pool(4);
    for (int failing = 0; failing < 4; ++failing) {
        EXPECT_THROW(pool.run([&](int worker) {
            if (worker == failing) throw std::runtime_error("worker failed");
        }),
                     std::runtime_error);
        std::atomic<int> calls{0};
        pool.run([&](int) { ++calls; });
        EXPECT_EQ(calls, 4);
    }
}

TEST(ThreadPool, WakesWorkersThatFellAsleep) {
    ThreadPool pool(4);
    for (int round = 0; round < 5; ++round) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        std::atomic<int> calls{0};
        pool.run([&](int worker) {
            if (worker == 1) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the caller sleeps, too
            ++calls;
        });
        EXPECT_EQ(calls, 4);
    }
}

TEST(ThreadPool, TakesOneWorkerPerCoreByDefault) { EXPECT_GE(ThreadPool().size(), 1); }

}  // namespace
}  // namespace mha2mla::core
