#include "model/one_thread_each.h"

#include <algorithm>
#include <atomic>
#include <torch/torch.h>

#include "core/thread_pool.h"
#include "model/autocast.h"

namespace mha2mla::model {
namespace {

/// A thread takes the number over that is set when it first asks for it.
class OneThread {
public:
    OneThread() { at::set_num_threads(1); }
    ~OneThread() { at::set_num_threads(before_); }
    OneThread(const OneThread&) = delete;
    OneThread& operator=(const OneThread&) = delete;

    int before() const { return before_; }

private:
    const int before_ = at::get_num_threads();
};

}  // namespace

void one_thread_each(std::int64_t count, core::FunctionRef<void(std::int64_t)> task) {
    const OneThread of_each;
    const auto threads = std::clamp<std::int64_t>(count, 1, of_each.before());
    core::ThreadPool pool(static_cast<int>(threads));
    std::atomic<std::int64_t> next{0};
    pool.run([&](int) {
        const torch::AutoGradMode with_gradients(true);
        const Autocast without_rounding(torch::kCPU, false);
        try {
            for (std::int64_t i = next++; i < count; i = next++) task(i);
        } catch (...) {
            next = count;
            throw;
        }
    });
}

}  // namespace mha2mla::model
