#pragma once

#include <cstdint>

#include "core/function_ref.h"

namespace mha2mla::model {

/// Calls task(0) to task(count - 1), as many at once as LibTorch has threads, each on one thread: operations within
/// share nothing out, so that none waits for another. Meanwhile LibTorch has one thread everywhere. Tasks begin with
/// gradients on and autocast off. After an exception no further task begins, and the first one is thrown here.
void one_thread_each(std::int64_t count, core::FunctionRef<void(std::int64_t)> task);

}  // namespace mha2mla::model
