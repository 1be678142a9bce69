#include "cache/page_format.h"

#include "core/error.h"

namespace mha2mla::cache {
namespace {

void add_plane(PageFormat& format, std::int64_t width) {
    core::invariant(format.dtype != core::DType::f16, "cached rows are bf16 or f32");
    core::invariant(width > 0, "a plane has a width");
    const std::size_t row_bytes = static_cast<std::size_t>(width) * core::size_of(format.dtype);
    format.planes.push_back({.offset_bytes = format.page_bytes(), .width = width, .row_bytes = row_bytes});
}

}  // namespace

std::size_t PageFormat::bytes_per_token() const {
    std::size_t bytes = 0;
    for (const Plane& plane : planes) bytes += plane.row_bytes;
    return bytes;
}

PageFormat grouped_query_format(core::DType dtype, int kv_heads, int head_dim) {
    PageFormat format{.dtype = dtype, .planes = {}};
    for (int head = 0; head < kv_heads; ++head) {
        add_plane(format, head_dim);
        add_plane(format, head_dim);
    }
    return format;
}

PageFormat latent_format(core::DType dtype, int kv_lora_rank, int rope_key_width) {
    PageFormat format{.dtype = dtype, .planes = {}};
    add_plane(format, kv_lora_rank + rope_key_width);
    return format;
}

}  // namespace mha2mla::cache
