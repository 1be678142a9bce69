#include "runtime/compute.h"

namespace mha2mla::runtime {
namespace {

constexpr std::int64_t smallest_shared_work = 32 * 1024;  // some 3 us on one core; a barrier costs about 1 us

}  // namespace

void parallel_ranges(core::ThreadPool& pool, std::int64_t count, std::int64_t work,
                     core::FunctionRef<void(int, std::int64_t, std::int64_t)> task) {
    if (work < smallest_shared_work || count == 1 || pool.size() == 1) return task(0, 0, count);
    const std::int64_t workers = pool.size();
    pool.run([&](int worker) {
        const std::int64_t begin = count * worker / workers;
        const std::int64_t end = count * (worker + 1) / workers;
        if (begin < end) task(worker, begin, end);
    });
}

}  // namespace mha2mla::runtime
