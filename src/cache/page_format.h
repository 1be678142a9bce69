#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/dtype.h"

namespace mha2mla::cache {

/// Tokens of a page.
inline constexpr std::int64_t page_tokens = 64;

/// Rows of one kind in a page: [page_tokens, width], without gaps.
struct Plane {
    std::size_t offset_bytes = 0;  ///< from the start of the page
    std::int64_t width = 0;        ///< elements of a row
    std::size_t row_bytes = 0;
};

/// A page, 64 tokens of one layer, as data: the only place that knows where the bytes lie.
struct PageFormat {
    core::DType dtype = core::DType::bf16;
    std::vector<Plane> planes;

    std::size_t bytes_per_token() const;
    std::size_t page_bytes() const { return bytes_per_token() * static_cast<std::size_t>(page_tokens); }
};

/// Grouped-query attention: for each KV head a plane of keys, then a plane of values, head_dim wide.
PageFormat grouped_query_format(core::DType dtype, int kv_heads, int head_dim);
constexpr int key_plane(int kv_head) { return 2 * kv_head; }
constexpr int value_plane(int kv_head) { return 2 * kv_head + 1; }

/// Latent attention: one plane. A row is the latent, then the rotary keys head by head; the whole row is the key, its
/// first `kv_lora_rank` elements are the value.
PageFormat latent_format(core::DType dtype, int kv_lora_rank, int rope_key_width);
inline constexpr int latent_plane = 0;

}  // namespace mha2mla::cache
