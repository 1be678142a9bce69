#include "model/one_thread_each.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace mha2mla::model {
namespace {

/// A thread takes the number over that is set when it first asks for it.
class OneThread {
public:
    OneThread() { at::set_num_threads(1); }
    ~OneThread() { at::set_num_threads(before_); }
    OneThread(const OneThread&) = delete;
    OneThread& operator=(const OneThread&) = delete;

    std::int64_t before() const { return before_; }

private:
    const int before_ = at::get_num_threads();
};

}  // namespace

void one_thread_each(std::int64_t count, core::FunctionRef<void(std::int64_t)> task) {
    std::atomic<std::int64_t> next{0};
    std::mutex mutex;
    std::exception_ptr failure;
    const auto work = [&] {
        try {
            for (std::int64_t i = next++; i < count; i = next++) task(i);
        } catch (...) {
            next = count;
            const std::lock_guard lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    {
        const OneThread of_each;
        std::vector<std::jthread> threads;
        for (std::int64_t i = 0; i < std::min(count, of_each.before()); ++i) threads.emplace_back(work);
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace mha2mla::model
