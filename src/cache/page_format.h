#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cache/cache_format.h"
#include "core/dtype.h"
#include "kernels/kernels.h"

namespace mha2mla::cache {

/// Rows of one kind in a page, as they are written: [page_tokens, width] numbers, without gaps.
struct Plane {
    std::size_t offset_bytes = 0;  ///< from the start of the page
    std::int64_t width = 0;        ///< elements of a row
    std::size_t row_bytes = 0;
};

/// Some columns of a plane in a sealed page: first the rows of all tokens (numbers, or codes packed from the low bits
/// of a byte on), then the scales of codes, token by token or channel by channel.
struct SealedPlane {
    int plane = 0;                  ///< whose rows these are
    std::int64_t first_column = 0;  ///< in those rows
    std::int64_t width = 0;
    RowFormat rows;
    std::size_t offset_bytes = 0;  ///< from the start of the sealed page
    std::size_t row_bytes = 0;     ///< of a token, without scales
    std::size_t scales_bytes = 0;  ///< of the page

    std::size_t scales_offset_bytes() const { return offset_bytes + row_bytes * static_cast<std::size_t>(page_tokens); }
    std::size_t end_bytes() const { return scales_offset_bytes() + scales_bytes; }
};

/// A page, 64 tokens of one layer, as data: the only place that knows where the bytes lie.
///
/// A page is written as exact rows. A format with codes has it sealed when it is full: quantized once, with all 64
/// tokens at hand, and never again.
struct PageFormat {
    core::DType dtype = core::DType::bf16;
    std::vector<Plane> planes;        ///< of a page as it is written
    std::vector<SealedPlane> sealed;  ///< of a sealed page; empty: full pages stay as they were written

    bool seals() const { return !sealed.empty(); }
    /// As it is written.
    std::size_t bytes_per_token() const;
    std::size_t page_bytes() const { return bytes_per_token() * static_cast<std::size_t>(page_tokens); }
    /// Of a full page: sealed where the format seals.
    std::size_t full_page_bytes() const { return seals() ? sealed.back().end_bytes() : page_bytes(); }

    /// Where a kernel finds the rows of these planes in a sealed page, relative to the first of sealed_start(plane).
    kernels::SealedFormat sealed_format(int key_plane, int value_plane) const;
    std::size_t sealed_start(int plane) const;
    /// The same for a page as it is written: the planes as numbers.
    kernels::SealedFormat exact_format(int key_plane, int value_plane) const;
};

/// Grouped-query attention: for each KV head a plane of keys, then a plane of values, head_dim wide.
PageFormat grouped_query_format(const CacheFormat& format, int kv_heads, int head_dim);
PageFormat grouped_query_format(core::DType dtype, int kv_heads, int head_dim);
constexpr int key_plane(int kv_head) { return 2 * kv_head; }
constexpr int value_plane(int kv_head) { return 2 * kv_head + 1; }

/// Latent attention: a plane for each group of heads with a latent of its own, usually one for all. A row is the
/// latent, then the rotary keys head by head; the whole row is the key, the latent is the value. A sealed page keeps
/// the two apart. Widths are those of all groups together.
PageFormat latent_format(const CacheFormat& format, int kv_lora_rank, int rope_key_width, int latent_groups = 1);
PageFormat latent_format(core::DType dtype, int kv_lora_rank, int rope_key_width);
constexpr int latent_plane(int latent_group = 0) { return latent_group; }

}  // namespace mha2mla::cache
