#include "runtime/chunk.h"

#include <algorithm>
#include <cmath>

namespace mha2mla::runtime {

AttentionShape::AttentionShape(const checkpoint::ModelConfig& config)
    : heads(config.num_attention_heads),
      kv_heads(config.num_key_value_heads),
      group(config.group_size()),
      head_dim(config.head_dim),
      value_dim(config.is_mla() ? config.mla().v_head_dim : config.head_dim),
      softmax_scale(
          static_cast<float>(config.is_mla() ? config.mla().softmax_scale : 1 / std::sqrt(double(config.head_dim)))) {}

void store_cache_rows(const AttentionInput& input, const CacheRows& rows, const kernels::KernelSet& kernels) {
    const Chunk& chunk = input.chunk;
    const cache::PageFormat& format = chunk.cache.pool().format(input.layer);
    const cache::Plane& plane = format.planes[static_cast<std::size_t>(rows.plane)];
    for (std::int64_t row = rows.begin; row < rows.end;) {
        const std::int64_t token = chunk.first_position + row;
        const std::int64_t run = std::min(cache::page_tokens - token % cache::page_tokens, rows.end - row);
        kernels.store_rows({.x = rows.x + row * rows.x_stride,
                            .x_stride = rows.x_stride,
                            .rows = run,
                            .width = plane.width,
                            .dtype = format.dtype,
                            .y = chunk.cache.row(input.layer, rows.plane, token),
                            .y_stride_bytes = static_cast<std::int64_t>(plane.row_bytes)});
        row += run;
    }
}

void seal_full_pages(const AttentionInput& input, const Compute& compute) {
    const Chunk& chunk = input.chunk;
    const cache::PageFormat& format = chunk.cache.pool().format(input.layer);
    if (!format.seals()) return;
    constexpr std::int64_t work_of_byte = 16;  // quantizing takes longer than the multiply-adds that work counts
    const auto full = chunk.cache.full_pages(chunk.tokens);
    const std::int64_t pages = full.end - full.begin;
    parallel_ranges(compute.pool, pages, pages * static_cast<std::int64_t>(format.page_bytes()) * work_of_byte,
                    [&](int, std::int64_t begin, std::int64_t end) {
                        for (std::int64_t page = begin; page < end; ++page) {
                            chunk.cache.seal(input.layer, full.begin + page);
                        }
                    });
}

void gather_heads(const float* grouped, const AttentionInput& input, const Compute& compute) {
    const AttentionShape& shape = input.shape;
    const std::int64_t tokens = input.chunk.tokens;
    const std::int64_t width = shape.group * shape.value_dim;
    float* const heads = compute.workspace.heads.data();
    parallel_ranges(compute.pool, tokens, tokens * shape.kv_heads * width,
                    [&](int, std::int64_t begin, std::int64_t end) {
                        for (std::int64_t token = begin; token < end; ++token) {
                            for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
                                std::copy_n(grouped + (g * tokens + token) * width, width,
                                            heads + (token * shape.kv_heads + g) * width);
                            }
                        }
                    });
}

}  // namespace mha2mla::runtime
