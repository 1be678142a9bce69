#include "runtime/linear.h"

#include <algorithm>

namespace mha2mla::runtime {
namespace {

/// Output tiles of one matrix for the rows of its KV head, chunk by chunk: the weights come from memory once.
void multiply_group(const GroupedLinearJob& job, std::int64_t g, kernels::LinearParams params, const Compute& compute) {
    const auto groups = static_cast<std::int64_t>(job.matrices->size());
    params.x_stride = params.weight.inputs;
    params.y_stride = job.y_stride;
    for (const Chunk& chunk : job.chunks) {
        const std::int64_t row = (chunk.first_row * groups + g * chunk.tokens) * job.group;
        params.x = job.x + row * params.x_stride;
        params.y = job.y + row * params.y_stride;
        params.rows = chunk.tokens * job.group;
        compute.kernels.linear(params);
    }
}

}  // namespace

kernels::LinearParams linear_params(const LinearJob& job, std::int64_t first_tile, std::int64_t end_tile) {
    const Matrix& weight = job.linear->weight;
    return {.x = job.x,
            .x_stride = weight.inputs(),
            .rows = job.rows,
            .weight = weight.packed(),
            .bias = job.linear->bias_or_null(),
            .y = job.y,
            .y_stride = weight.outputs(),
            .accumulate = job.accumulate,
            .first_tile = first_tile,
            .tiles = end_tile - first_tile};
}

void run_linear(const LinearJob& job, const Compute& compute) {
    const Matrix& weight = job.linear->weight;
    const std::int64_t work = job.rows * weight.outputs() * weight.inputs();
    parallel_ranges(compute.pool, weight.packed().tiles(), work,
                    [&](int worker, std::int64_t first_tile, std::int64_t end_tile) {
                        auto params = linear_params(job, first_tile, end_tile);
                        params.scratch = compute.workspace.kernel_scratch(worker);
                        compute.kernels.linear(params);
                    });
}

void run_grouped_linear(const GroupedLinearJob& job, const Compute& compute) {
    if (job.matrices->empty()) return;
    const Matrix& first = job.matrices->front();  // all have the same shape
    const std::int64_t tiles = first.packed().tiles();
    const auto groups = static_cast<std::int64_t>(job.matrices->size());
    const std::int64_t rows = count_tokens(job.chunks) * groups * job.group;
    const std::int64_t work = rows * first.outputs() * first.inputs();
    parallel_ranges(compute.pool, groups * tiles, work, [&](int worker, std::int64_t begin, std::int64_t end) {
        for (std::int64_t g = begin / tiles; g * tiles < end; ++g) {
            const std::int64_t first_tile = std::max(begin - g * tiles, std::int64_t{0});
            multiply_group(job, g,
                           {.weight = (*job.matrices)[static_cast<std::size_t>(g)].packed(),
                            .first_tile = first_tile,
                            .tiles = std::min(end - g * tiles, tiles) - first_tile,
                            .scratch = compute.workspace.kernel_scratch(worker)},
                           compute);
        }
    });
}

}  // namespace mha2mla::runtime
