#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "core/error.h"

namespace mha2mla::core {
namespace {

constexpr int spins_before_sleep = 20'000;  // some tens of microseconds: longer than the gaps inside a decode step

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/// Returns once `value` differs from `old`.
std::uint32_t wait_for_change(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
    for (int spin = 0; spin < spins_before_sleep; ++spin) {
        const auto now = value.load(std::memory_order_acquire);
        if (now != old) return now;
        pause();
    }
    value.wait(old, std::memory_order_acquire);
    return value.load(std::memory_order_acquire);
}

/// One for each processor that this process may run on: mpirun ties processes to some.
int default_threads() {
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof(mine), &mine) == 0) return std::max(1, CPU_COUNT(&mine));
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
    const int count = threads > 0 ? threads : default_threads();
    workers_.reserve(static_cast<std::size_t>(count - 1));
    try {
        for (int worker = 1; worker < count; ++worker) workers_.emplace_back([this, worker] { work(worker); });
    } catch (const std::system_error& error) {
        join();
        throw Error({.what = std::string("cannot start another thread: ") + error.what(),
                     .expected = std::to_string(count) + " threads",
                     .got = std::to_string(workers_.size() + 1),
                     .where = "--threads",
                     .remedy = "pass a smaller number"});
    }
}

ThreadPool::~ThreadPool() { join(); }

void ThreadPool::join() {
    stopping_.store(true, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void ThreadPool::run(FunctionRef<void(int)> task) {
    task_ = &task;
    pending_.store(static_cast<std::uint32_t>(workers_.size()), std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    call(0);
    for (auto left = pending_.load(std::memory_order_acquire); left != 0;) left = wait_for_change(pending_, left);
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::parallel_for(std::int64_t count, std::int64_t grain,
                              FunctionRef<void(std::int64_t, std::int64_t)> task) {
    const std::int64_t blocks = (count + grain - 1) / grain;
    const std::int64_t workers = size();
    if (blocks <= 1) return blocks == 1 ? task(0, count) : void();
    run([&](int worker) {
        const std::int64_t begin = blocks * worker / workers * grain;
        const std::int64_t end = std::min(count, blocks * (worker + 1) / workers * grain);
        if (begin < end) task(begin, end);
    });
}

void ThreadPool::work(int worker) {
    std::uint32_t seen = 0;
    while (true) {
        seen = wait_for_change(round_, seen);
        if (stopping_.load(std::memory_order_relaxed)) return;
        call(worker);
        if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
    }
}

void ThreadPool::call(int worker) {
    try {
        (*task_)(worker);
    } catch (...) {
        const std::lock_guard lock(failure_mutex_);
        if (!failure_) failure_ = std::current_exception();
    }
}

}  // namespace mha2mla::core
