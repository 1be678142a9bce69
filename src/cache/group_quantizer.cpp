#include "cache/group_quantizer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace mha2mla::cache {
namespace {

struct Range {
    float low;
    float high;
};

/// The extremes of a group; NaN where an element is not finite or too large.
Range range_of(std::span<const float> group) {
    Range range{group.front(), group.front()};
    for (const float x : group) {
        if (!(std::abs(x) <= largest_quantized)) {
            constexpr float nan = std::numeric_limits<float>::quiet_NaN();
            return {nan, nan};
        }
        range.low = std::min(range.low, x);
        range.high = std::max(range.high, x);
    }
    return range;
}

/// The bf16 number after x, away from zero.
core::bf16 farther(core::bf16 x) { return {static_cast<std::uint16_t>(x.bits + 1)}; }

/// The bf16 number that truncation gives: at x or next to it, towards zero.
core::bf16 towards_zero(float x) { return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16)}; }

/// The largest bf16 number <= x, for finite x.
core::bf16 round_down(float x) {
    const core::bf16 near = towards_zero(x);
    return core::to_float(near) > x ? farther(near) : near;
}

/// The smallest bf16 number >= x, for x >= 0.
core::bf16 round_up(double x) {
    const core::bf16 near = core::to_bf16(static_cast<float>(x));
    return static_cast<double>(core::to_float(near)) < x ? farther(near) : near;
}

GroupScale scale_of(const Range& range, int last_code) {
    if (std::isnan(range.low)) return {.scale = {}, .zero = core::to_bf16(range.low)};
    const core::bf16 zero = round_down(range.low);
    const double width = static_cast<double>(range.high) - static_cast<double>(core::to_float(zero));
    return {.scale = round_up(width / last_code), .zero = zero};
}

void quantize_group(const GroupScale& group, int last_code, std::span<const float> elements, std::uint8_t* codes) {
    const double zero = core::to_float(group.zero);
    const double scale = core::to_float(group.scale);
    if (std::isnan(zero) || scale == 0) {
        std::fill_n(codes, elements.size(), std::uint8_t{0});
        return;
    }
    for (std::size_t i = 0; i < elements.size(); ++i) {
        const double nearest = std::nearbyint((static_cast<double>(elements[i]) - zero) / scale);
        codes[i] = static_cast<std::uint8_t>(std::min<double>(nearest, last_code));
    }
}

void check(const GroupFormat& format, std::size_t elements, std::size_t codes, std::size_t scales) {
    core::invariant(format.bits == 8 || format.bits == 4 || format.bits == 2, "a code has 8, 4 or 2 bits");
    core::invariant(format.group_elements > 0, "a group has elements");
    core::invariant(codes == elements && scales == format.groups(elements), "codes and scales fit the row");
}

}  // namespace

std::size_t GroupFormat::groups(std::size_t elements) const {
    const auto size = static_cast<std::size_t>(group_elements);
    return (elements + size - 1) / size;
}

std::size_t GroupFormat::row_bytes(std::size_t elements) const {
    return (elements * static_cast<std::size_t>(bits) + 7) / 8 + groups(elements) * sizeof(GroupScale);
}

void quantize_row(const GroupFormat& format, std::span<const float> row, std::span<std::uint8_t> codes,
                  std::span<GroupScale> scales) {
    check(format, row.size(), codes.size(), scales.size());
    const int last_code = (1 << format.bits) - 1;
    const auto size = static_cast<std::size_t>(format.group_elements);
    for (std::size_t first = 0; first < row.size(); first += size) {
        const auto group = row.subspan(first, std::min(size, row.size() - first));
        GroupScale& scale = scales[first / size];
        scale = scale_of(range_of(group), last_code);
        quantize_group(scale, last_code, group, codes.data() + first);
    }
}

void dequantize_row(const GroupFormat& format, std::span<const std::uint8_t> codes, std::span<const GroupScale> scales,
                    std::span<float> row) {
    check(format, row.size(), codes.size(), scales.size());
    const auto size = static_cast<std::size_t>(format.group_elements);
    for (std::size_t i = 0; i < row.size(); ++i) {
        const GroupScale& group = scales[i / size];
        row[i] = core::to_float(group.zero) + static_cast<float>(codes[i]) * core::to_float(group.scale);
    }
}

}  // namespace mha2mla::cache
