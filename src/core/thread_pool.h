#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/function_ref.h"

namespace mha2mla::core {

/// Runs one function on all workers at a time. The caller is worker 0. Idle workers spin for a bounded time, then
/// sleep. `run` neither allocates nor enters the kernel while the workers spin. Not re-entrant: one caller at a time.
class ThreadPool {
public:
    /// `threads` workers in all, the caller included; 0 means one per core. Throws Error where the system gives no
    /// more.
    explicit ThreadPool(int threads = 0);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    /// Calls task(worker) once on each worker and returns when all are done. The first exception of a worker is
    /// rethrown.
    void run(FunctionRef<void(int worker)> task);

    /// Splits [0, count) into contiguous pieces whose bounds are multiples of `grain`, one piece per worker.
    void parallel_for(std::int64_t count, std::int64_t grain,
                      FunctionRef<void(std::int64_t begin, std::int64_t end)> task);

private:
    void work(int worker);
    void call(int worker);
    void join();

    const FunctionRef<void(int)>* task_ = nullptr;
    std::atomic<std::uint32_t> round_{0};    // raised by run() to start a round
    std::atomic<std::uint32_t> pending_{0};  // workers still busy in this round
    std::atomic<bool> stopping_{false};
    std::mutex failure_mutex_;
    std::exception_ptr failure_;
    std::vector<std::thread> workers_;
};

}  // namespace mha2mla::core
