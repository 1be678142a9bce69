#include "cache/page_codec.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"

namespace mha2mla::cache {
namespace {

constexpr std::size_t most_group = 1024;  // parse_cache_format allows no more

/// One element of an exact row.
class Element {
public:
    Element(const PageFormat& format, const SealedPlane& part)
        : plane_(format.planes[static_cast<std::size_t>(part.plane)]),
          dtype_(format.dtype),
          first_(plane_.offset_bytes + static_cast<std::size_t>(part.first_column) * core::size_of(dtype_)) {}

    std::size_t offset(std::int64_t token, std::int64_t column) const {
        return first_ + static_cast<std::size_t>(token) * plane_.row_bytes +
               static_cast<std::size_t>(column) * core::size_of(dtype_);
    }
    float load(const std::byte* page, std::int64_t token, std::int64_t column) const {
        const std::byte* at = page + offset(token, column);
        if (dtype_ == core::DType::f32) return *reinterpret_cast<const float*>(at);
        return core::to_float(*reinterpret_cast<const core::bf16*>(at));
    }
    void store(std::byte* page, std::int64_t token, std::int64_t column, float x) const {
        std::byte* at = page + offset(token, column);
        if (dtype_ == core::DType::f32) {
            *reinterpret_cast<float*>(at) = x;
        } else {
            *reinterpret_cast<core::bf16*>(at) = core::to_bf16(x);
        }
    }

private:
    const Plane& plane_;
    core::DType dtype_;
    std::size_t first_;
};

/// Codes of a sealed plane.
class Codes {
public:
    explicit Codes(const SealedPlane& part) : part_(part), bits_(static_cast<std::size_t>(part.rows.codes->bits)) {}

    std::uint8_t get(const std::byte* page, std::int64_t token, std::int64_t column) const {
        const auto byte = std::to_integer<unsigned>(page[offset(token, column)]);
        return static_cast<std::uint8_t>(byte >> shift(column) & ((1u << bits_) - 1));
    }
    /// The code's bits are zero before.
    void put(std::byte* page, std::int64_t token, std::int64_t column, std::uint8_t code) const {
        page[offset(token, column)] |= static_cast<std::byte>(code << shift(column));
    }

private:
    std::size_t offset(std::int64_t token, std::int64_t column) const {
        return part_.offset_bytes + static_cast<std::size_t>(token) * part_.row_bytes +
               static_cast<std::size_t>(column) * bits_ / 8;
    }
    std::size_t shift(std::int64_t column) const { return static_cast<std::size_t>(column) * bits_ % 8; }

    const SealedPlane& part_;
    std::size_t bits_;
};

/// Elements that share a scale: a step along the tokens or along the columns.
struct Group {
    std::int64_t token;
    std::int64_t column;
    std::int64_t elements;
    bool by_channel;
    std::size_t scale;  // its number in the plane

    std::int64_t token_of(std::int64_t i) const { return by_channel ? token + i : token; }
    std::int64_t column_of(std::int64_t i) const { return by_channel ? column : column + i; }
};

template <typename Visit>
void for_each_group(const SealedPlane& part, std::int64_t tokens, const Visit& visit) {
    const std::int64_t size = part.rows.codes->group_elements;
    if (part.rows.by_channel) {
        for (std::int64_t column = 0; column < part.width; ++column) {
            visit(Group{0, column, tokens, true, static_cast<std::size_t>(column)});
        }
        return;
    }
    const std::int64_t groups = (part.width + size - 1) / size;
    for (std::int64_t token = 0; token < tokens; ++token) {
        for (std::int64_t g = 0; g < groups; ++g) {
            const std::int64_t column = g * size;
            visit(Group{token, column, std::min(size, part.width - column), false,
                        static_cast<std::size_t>(token * groups + g)});
        }
    }
}

void seal_plane(const PageFormat& format, const SealedPlane& part, const std::byte* exact, std::byte* sealed) {
    const Element element(format, part);
    const Codes codes(part);
    auto* const scales = reinterpret_cast<GroupScale*>(sealed + part.scales_offset_bytes());
    std::memset(sealed + part.offset_bytes, 0, part.row_bytes * static_cast<std::size_t>(page_tokens));
    for_each_group(part, page_tokens, [&](const Group& group) {
        std::array<float, most_group> row;
        std::array<std::uint8_t, most_group> row_codes;
        const auto count = static_cast<std::size_t>(group.elements);
        for (std::int64_t i = 0; i < group.elements; ++i) {
            row[static_cast<std::size_t>(i)] = element.load(exact, group.token_of(i), group.column_of(i));
        }
        quantize_row(*part.rows.codes, {row.data(), count}, {row_codes.data(), count}, {scales + group.scale, 1});
        for (std::int64_t i = 0; i < group.elements; ++i) {
            codes.put(sealed, group.token_of(i), group.column_of(i), row_codes[static_cast<std::size_t>(i)]);
        }
    });
}

void unseal_plane(const PageFormat& format, const SealedPlane& part, const std::byte* sealed, std::int64_t rows,
                  std::byte* exact) {
    const Element element(format, part);
    const Codes codes(part);
    const auto* const scales = reinterpret_cast<const GroupScale*>(sealed + part.scales_offset_bytes());
    for_each_group(part, rows, [&](const Group& group) {
        for (std::int64_t i = 0; i < group.elements; ++i) {
            const std::uint8_t code = codes.get(sealed, group.token_of(i), group.column_of(i));
            float x = 0;
            dequantize_row(*part.rows.codes, {&code, 1}, {scales + group.scale, 1}, {&x, 1});
            element.store(exact, group.token_of(i), group.column_of(i), x);
        }
    });
}

/// Rows of a plane that stays numbers: calls visit(exact offset, sealed offset, bytes) for each.
template <typename Visit>
void for_each_row(const PageFormat& format, const SealedPlane& part, std::int64_t rows, const Visit& visit) {
    const Element element(format, part);
    for (std::int64_t token = 0; token < rows; ++token) {
        visit(element.offset(token, 0), part.offset_bytes + static_cast<std::size_t>(token) * part.row_bytes,
              part.row_bytes);
    }
}

}  // namespace

void seal_page(const PageFormat& format, const std::byte* exact, std::byte* sealed) {
    for (const SealedPlane& part : format.sealed) {
        if (part.rows.codes) {
            seal_plane(format, part, exact, sealed);
        } else {
            for_each_row(format, part, page_tokens, [&](std::size_t from, std::size_t to, std::size_t bytes) {
                std::memcpy(sealed + to, exact + from, bytes);
            });
        }
    }
}

void unseal_rows(const PageFormat& format, const std::byte* sealed, std::int64_t rows, std::byte* exact) {
    for (const SealedPlane& part : format.sealed) {
        if (part.rows.codes) {
            unseal_plane(format, part, sealed, rows, exact);
        } else {
            for_each_row(format, part, rows, [&](std::size_t to, std::size_t from, std::size_t bytes) {
                std::memcpy(exact + to, sealed + from, bytes);
            });
        }
    }
}

}  // namespace mha2mla::cache
