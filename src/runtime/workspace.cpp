#include "runtime/workspace.h"

#include <algorithm>

#include "cache/page_format.h"

namespace mha2mla::runtime {
namespace {

constexpr std::size_t alignment = 64;

std::size_t aligned(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

std::size_t floats(std::int64_t count) { return aligned(static_cast<std::size_t>(count) * sizeof(float)); }

cache::ArenaArray<float> float_array(std::int64_t count) {
    return cache::ArenaArray<float>(static_cast<std::size_t>(count));
}

static_assert(attention_task_rows <= max_key_split_rows, "a worker's rows serve both ways to split");
static_assert(max_key_split_rows <= max_position_rows, "a block of positions of all rows fits");

/// The scratch of any kernel call with up to `rows` rows. Kernels may work differently for few rows, so powers of two
/// up to `rows` are all asked.
std::size_t linear_bytes(std::int64_t rows, std::int64_t inputs) {
    std::size_t bytes = kernels::linear_scratch_bytes(rows, inputs);
    for (std::int64_t few = 1; few < rows; few *= 2) {
        bytes = std::max(bytes, kernels::linear_scratch_bytes(few, inputs));
    }
    return bytes;
}

std::size_t kernel_bytes(const WorkspaceShape& shape) {
    const std::int64_t group_rows = shape.tokens * shape.heads / shape.kv_heads;
    const std::int64_t inputs = std::max({shape.hidden, shape.intermediate, shape.heads_width});
    const std::int64_t attention_rows = std::max(attention_task_rows, max_key_split_rows);
    return aligned(std::max(
        {linear_bytes(shape.tokens, inputs), linear_bytes(attention_rows, shape.position_width),
         linear_bytes(std::max(group_rows, cache::page_tokens), std::max(shape.latent_width, shape.nope_width)),
         kernels::attention_scratch_bytes(attention_rows, shape.key_width, shape.value_width)}));
}

cache::ArenaArray<float> position_logits_array(const WorkspaceShape& shape) {
    if (shape.position_width == 0) return {};
    return float_array(shape.workers * max_position_rows * position_block_tokens);
}

cache::Arena expanded(const WorkspaceShape& shape, std::int64_t width) {
    const std::int64_t elements = shape.pages * cache::page_tokens * width;
    return cache::Arena(static_cast<std::size_t>(elements) * core::size_of(shape.kv_cache));
}

}  // namespace

Workspace::Workspace(const WorkspaceShape& shape)
    : hidden(float_array(shape.tokens * shape.hidden)),
      normed(float_array(shape.tokens * shape.hidden)),
      projected(float_array(shape.tokens * shape.projected)),
      nope(float_array(shape.tokens * shape.heads * shape.nope_width)),
      query(float_array(shape.tokens * shape.heads * shape.key_width)),
      position_query(float_array(shape.tokens * shape.heads * shape.position_width)),
      attended(float_array(shape.tokens * shape.heads * shape.value_width)),
      grouped(float_array(shape.tokens * shape.heads_width * (shape.sink_tokens > 0 ? 2 : 1))),
      sink_projected(float_array(shape.sink_tokens * 2 * shape.kv_heads * shape.sink_width)),
      sink_query(float_array(shape.tokens * shape.heads * shape.sink_width)),
      part_max(float_array(2 * shape.tokens * shape.heads)),
      part_sum(float_array(2 * shape.tokens * shape.heads)),
      heads(float_array(shape.tokens * shape.heads_width)),
      gate(float_array(shape.tokens * shape.intermediate)),
      up(float_array(shape.tokens * shape.intermediate)),
      logits(float_array(shape.tokens * shape.vocab)),
      visible(static_cast<std::size_t>(shape.tokens * shape.heads)),
      blocks(static_cast<std::size_t>(shape.workers * shape.kv_heads * shape.pages)),
      partial(float_array(2 * shape.workers * max_key_split_rows * shape.value_width)),
      row_max(float_array(std::max(2 * shape.workers * max_key_split_rows, shape.tokens * shape.heads))),
      row_sum(float_array(std::max(2 * shape.workers * max_key_split_rows, shape.tokens * shape.heads))),
      position_logits(position_logits_array(shape)),
      turned_query(float_array(shape.workers * max_key_split_rows * shape.position_width)),
      projected_query(float_array(shape.workers * max_key_split_rows * shape.position_width)),
      expanded_keys(expanded(shape, shape.expanded_key)),
      expanded_values(expanded(shape, shape.expanded_value)),
      position_query_stride_(max_key_split_rows * shape.position_width),
      blocks_stride_(shape.kv_heads * shape.pages),
      kernel_bytes_(kernel_bytes(shape)),
      rebuilt_bytes_(floats(cache::page_tokens * std::max(shape.nope_width, shape.expanded_value))),
      scratch_stride_(kernel_bytes_ + rebuilt_bytes_ +
                      floats(cache::page_tokens * (shape.latent_width + kernels::group_unit))),
      scratch_(scratch_stride_ * static_cast<std::size_t>(shape.workers)) {}

float* Workspace::rebuilt_rows(int worker) const {
    return reinterpret_cast<float*>(static_cast<std::byte*>(kernel_scratch(worker)) + kernel_bytes_);
}

float* Workspace::latent_rows(int worker) const {
    return reinterpret_cast<float*>(static_cast<std::byte*>(kernel_scratch(worker)) + kernel_bytes_ + rebuilt_bytes_);
}

}  // namespace mha2mla::runtime
