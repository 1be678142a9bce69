#pragma once

#include <ATen/Parallel.h>
#include <cstdint>

namespace mha2mla::model {

/// Calls task(begin, end, part) for `parts` even parts of the rows, shared out to LibTorch's threads. Who adds up what
/// depends on the number of parts alone.
template <typename Task>
void for_parts(std::int64_t rows, std::int64_t parts, const Task& task) {
    at::parallel_for(0, parts, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t part = first; part < last; ++part) task(rows * part / parts, rows * (part + 1) / parts, part);
    });
}

}  // namespace mha2mla::model
