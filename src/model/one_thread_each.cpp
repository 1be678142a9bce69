#include "model/one_thread_each.h"

#include <omp.h>

#include <ATen/Parallel.h>
#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace mha2mla::model {
namespace {

/// From now on the calling thread shares nothing out.
void work_alone() {
    at::get_num_threads();  // its first call gives a thread as many as all have
    omp_set_num_threads(1);
}

}  // namespace

void one_thread_each(std::int64_t count, core::FunctionRef<void(std::int64_t)> task) {
    std::atomic<std::int64_t> next{0};
    std::mutex mutex;
    std::exception_ptr failure;
    const auto work = [&] {
        work_alone();
        try {
            for (std::int64_t i = next++; i < count; i = next++) task(i);
        } catch (...) {
            next = count;
            const std::lock_guard lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    {
        std::vector<std::jthread> threads;
        for (std::int64_t i = 0; i < std::min<std::int64_t>(count, at::get_num_threads()); ++i) {
            threads.emplace_back(work);
        }
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace mha2mla::model
