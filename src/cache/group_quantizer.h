#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/dtype.h"

namespace mha2mla::cache {

/// A row of numbers as codes of a few bits. Elements that follow each other form groups; a group has a scale and a zero
/// in bf16, and an element is zero + code * scale with 0 <= code < 2^bits. The last group of a row may be shorter.
struct GroupFormat {
    int bits = 8;             ///< of a code: 8, 4 or 2
    int group_elements = 32;  ///< of a full group, at least 1

    std::size_t groups(std::size_t elements) const;
    /// Codes packed without gaps up to whole bytes, and 4 bytes a group.
    std::size_t row_bytes(std::size_t elements) const;

    bool operator==(const GroupFormat&) const = default;
};

/// What a group keeps beside its codes.
struct GroupScale {
    core::bf16 scale;  ///< >= 0
    core::bf16 zero;
};

/// Elements beyond this magnitude count as infinite, so that de-quantization cannot overflow.
inline constexpr float largest_quantized = 0x1p126f;

/// Quantizes one row. `codes` has an item per element (how codes are packed is the page's business), `scales` one per
/// group. The zero is the largest bf16 number at or below the group's minimum, the scale the smallest that reaches the
/// maximum with the last code; a code is the nearest, ties to even. So no element moves by more than half a scale. A
/// group with a NaN or an infinite element becomes NaN throughout: the fault stays visible.
void quantize_row(const GroupFormat& format, std::span<const float> row, std::span<std::uint8_t> codes,
                  std::span<GroupScale> scales);

/// The row again: in fp32, the product exact and one rounding for the sum.
void dequantize_row(const GroupFormat& format, std::span<const std::uint8_t> codes, std::span<const GroupScale> scales,
                    std::span<float> row);

}  // namespace mha2mla::cache
