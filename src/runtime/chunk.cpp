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

std::int64_t count_tokens(std::span<const Chunk> chunks) {
    std::int64_t tokens = 0;
    for (const Chunk& chunk : chunks) tokens += chunk.tokens;
    return tokens;
}

void parallel_rows(std::span<const Chunk> chunks, std::int64_t work_of_row, const Compute& compute,
                   core::FunctionRef<void(int, const Chunk&, std::int64_t, std::int64_t)> task) {
    const std::int64_t tokens = count_tokens(chunks);
    parallel_ranges(compute.pool, tokens, tokens * work_of_row, [&](int worker, std::int64_t begin, std::int64_t end) {
        std::int64_t first = 0;  // row of the chunk
        for (const Chunk& chunk : chunks) {
            const std::int64_t from = std::max(begin - first, std::int64_t{0});
            const std::int64_t to = std::min(end - first, chunk.tokens);
            if (from < to) task(worker, chunk, from, to);
            first += chunk.tokens;
        }
    });
}

void store_cache_rows(const AttentionInput& input, const CacheRows& rows, const kernels::KernelSet& kernels) {
    const Chunk& chunk = input.chunk;
    const cache::PageFormat& format = chunk.cache.pool().format(input.layer);
    const cache::Plane& plane = format.planes[static_cast<std::size_t>(rows.plane)];
    const std::size_t first_byte = static_cast<std::size_t>(rows.first_column) * core::size_of(format.dtype);
    for (std::int64_t row = rows.begin; row < rows.end;) {
        const std::int64_t token = chunk.first_position + row;
        const std::int64_t run = std::min(cache::page_tokens - token % cache::page_tokens, rows.end - row);
        kernels.store_rows({.x = rows.x + row * rows.x_stride,
                            .x_stride = rows.x_stride,
                            .rows = run,
                            .width = rows.columns,
                            .dtype = format.dtype,
                            .y = chunk.cache.row(input.layer, rows.plane, token) + first_byte,
                            .y_stride_bytes = static_cast<std::int64_t>(plane.row_bytes)});
        row += run;
    }
}

void seal_full_pages(const AttentionBatch& batch, const Compute& compute) {
    const cache::PageFormat& format = batch.chunks.front().cache.pool().format(batch.layer);
    if (!format.seals()) return;
    constexpr std::int64_t work_of_byte = 16;  // quantizing takes longer than the multiply-adds that work counts
    for (const Chunk& chunk : batch.chunks) {
        const auto full = chunk.cache.full_pages(chunk.tokens);
        const std::int64_t pages = full.end - full.begin;
        parallel_ranges(compute.pool, pages, pages * static_cast<std::int64_t>(format.page_bytes()) * work_of_byte,
                        [&](int, std::int64_t begin, std::int64_t end) {
                            for (std::int64_t page = begin; page < end; ++page) {
                                chunk.cache.seal(batch.layer, full.begin + page);
                            }
                        });
    }
}

void gather_heads(const float* grouped, const AttentionBatch& batch, const Compute& compute) {
    const AttentionShape& shape = batch.shape;
    const std::int64_t width = shape.group * shape.value_dim;
    parallel_rows(batch.chunks, shape.kv_heads * width, compute,
                  [&](int, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
                      const std::int64_t offset = chunk.first_row * shape.kv_heads * width;
                      for (std::int64_t token = begin; token < end; ++token) {
                          for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
                              std::copy_n(
                                  grouped + offset + (g * chunk.tokens + token) * width, width,
                                  compute.workspace.heads.data() + offset + (token * shape.kv_heads + g) * width);
                          }
                      }
                  });
}

}  // namespace mha2mla::runtime
