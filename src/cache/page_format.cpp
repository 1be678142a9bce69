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

struct Columns {
    int plane;
    std::int64_t first;
    std::int64_t count;
};

/// Bytes of a token's row of numbers or codes, its scales left out.
std::size_t row_bytes(const RowFormat& rows, std::int64_t width) {
    const auto elements = static_cast<std::size_t>(width);
    return rows.codes ? (elements * static_cast<std::size_t>(rows.codes->bits) + 7) / 8 : rows.row_bytes(elements);
}

std::size_t scales_bytes(const RowFormat& rows, std::int64_t width) {
    if (!rows.codes) return 0;
    const auto elements = static_cast<std::size_t>(width);
    const std::size_t groups =
        rows.by_channel ? elements : rows.codes->groups(elements) * static_cast<std::size_t>(page_tokens);
    return groups * sizeof(GroupScale);
}

void add_sealed(PageFormat& format, const Columns& columns, const RowFormat& rows) {
    if (columns.count == 0) return;
    core::invariant(!rows.codes || rows.codes->group_elements % kernels::group_unit == 0, "groups are whole vectors");
    format.sealed.push_back({.plane = columns.plane,
                             .first_column = columns.first,
                             .width = columns.count,
                             .rows = rows,
                             .offset_bytes = format.seals() ? format.sealed.back().end_bytes() : 0,
                             .row_bytes = row_bytes(rows, columns.count),
                             .scales_bytes = scales_bytes(rows, columns.count)});
}

kernels::CodedRows coded_rows(const SealedPlane& plane, std::size_t start) {
    const auto& codes = plane.rows.codes;
    const auto relative = [&](std::size_t offset) { return static_cast<std::int64_t>(offset - start); };
    return {.bits = codes ? codes->bits : 16,
            .width = plane.width,
            .group = plane.rows.by_channel || !codes ? 0 : codes->group_elements,
            .row_bytes = static_cast<std::int64_t>(plane.row_bytes),
            .offset_bytes = relative(plane.offset_bytes),
            .scales_offset_bytes = relative(plane.scales_offset_bytes())};
}

}  // namespace

std::size_t PageFormat::bytes_per_token() const {
    std::size_t bytes = 0;
    for (const Plane& plane : planes) bytes += plane.row_bytes;
    return bytes;
}

std::size_t PageFormat::sealed_start(int plane) const {
    for (const SealedPlane& part : sealed) {
        if (part.plane == plane) return part.offset_bytes;
    }
    core::invariant(false, "every plane is sealed");
    return 0;
}

kernels::SealedFormat PageFormat::sealed_format(int key_plane, int value_plane) const {
    kernels::SealedFormat format;
    if (!seals()) return format;
    std::size_t parts = 0;
    for (const SealedPlane& part : sealed) {
        if (part.plane == key_plane) format.keys[parts++] = coded_rows(part, sealed_start(key_plane));
    }
    for (const SealedPlane& part : sealed) {
        if (part.plane != value_plane) continue;
        format.values = coded_rows(part, sealed_start(value_plane));
        break;
    }
    return format;
}

kernels::SealedFormat PageFormat::exact_format(int key_plane, int value_plane) const {
    const auto rows = [&](int plane) -> kernels::CodedRows {
        const Plane& of_plane = planes[static_cast<std::size_t>(plane)];
        return {.bits = static_cast<int>(8 * core::size_of(dtype)),
                .width = of_plane.width,
                .row_bytes = static_cast<std::int64_t>(of_plane.row_bytes)};
    };
    return {.keys = {rows(key_plane), {}}, .values = rows(value_plane)};
}

PageFormat grouped_query_format(const CacheFormat& cache, int kv_heads, int head_dim) {
    PageFormat format{.dtype = cache.content.dtype, .planes = {}, .sealed = {}};
    for (int head = 0; head < kv_heads; ++head) {
        add_plane(format, head_dim);
        add_plane(format, head_dim);
        if (!cache.has_codes()) continue;
        add_sealed(format, {key_plane(head), 0, head_dim}, cache.keys);
        add_sealed(format, {value_plane(head), 0, head_dim}, cache.content);
    }
    return format;
}

PageFormat grouped_query_format(core::DType dtype, int kv_heads, int head_dim) {
    return grouped_query_format(plain_format(dtype), kv_heads, head_dim);
}

PageFormat latent_format(const CacheFormat& cache, int kv_lora_rank, int rope_key_width, int latent_groups) {
    core::invariant(kv_lora_rank % latent_groups == 0 && rope_key_width % latent_groups == 0, "groups are alike");
    const int latent = kv_lora_rank / latent_groups;
    const int rotary = rope_key_width / latent_groups;
    PageFormat format{.dtype = cache.content.dtype, .planes = {}, .sealed = {}};
    for (int group = 0; group < latent_groups; ++group) {
        add_plane(format, latent + rotary);
        if (!cache.has_codes()) continue;
        add_sealed(format, {latent_plane(group), 0, latent}, cache.content);
        add_sealed(format, {latent_plane(group), latent, rotary}, cache.rotary);
    }
    return format;
}

PageFormat latent_format(core::DType dtype, int kv_lora_rank, int rope_key_width) {
    return latent_format(plain_format(dtype), kv_lora_rank, rope_key_width);
}

}  // namespace mha2mla::cache
