#pragma once

#include <cstdint>

#include "core/function_ref.h"
#include "core/thread_pool.h"
#include "kernels/kernels.h"
#include "runtime/workspace.h"

namespace mha2mla::runtime {

/// What every step of a forward pass works with.
struct Compute {
    const kernels::KernelSet& kernels;
    core::ThreadPool& pool;
    Workspace& workspace;
};

/// Splits [0, count) evenly over the workers. `work` (multiply-adds or elements moved) decides whether waking them
/// pays: a small job stays on the caller, as worker 0.
void parallel_ranges(core::ThreadPool& pool, std::int64_t count, std::int64_t work,
                     core::FunctionRef<void(int worker, std::int64_t begin, std::int64_t end)> task);

}  // namespace mha2mla::runtime
