#pragma once

#include <cstring>

#include "kernels/kernels.h"

/// Coded rows: the walk over their groups, and element by element the definition that the vector versions are held to.
namespace mha2mla::kernels {

/// Some rows of a part.
struct RowRange {
    std::int64_t first;
    std::int64_t count;
};

/// Elements [first, end) of a row, which share a scale and a zero.
struct CodedGroup {
    std::int64_t row;    // of the range
    const char* codes;   // of the row
    const char* scales;  // [2]
    std::int64_t first;
    std::int64_t end;
};

/// Calls visit(group) for the groups of rows that have their own.
template <class Visit>
[[gnu::always_inline]] inline void for_each_group(const CodedRows& rows, const char* block, RowRange range,
                                                  const Visit& visit) {
    const std::int64_t groups = (rows.width + rows.group - 1) / rows.group;
    for (std::int64_t r = 0; r < range.count; ++r) {
        const char* codes = block + rows.offset_bytes + (range.first + r) * rows.row_bytes;
        const char* scales = block + rows.scales_offset_bytes + (range.first + r) * groups * 4;
        for (std::int64_t first = 0; first < rows.width; first += rows.group, scales += 4) {
            const std::int64_t end = first + rows.group < rows.width ? first + rows.group : rows.width;
            visit(CodedGroup{r, codes, scales, first, end});
        }
    }
}

template <typename Number>
Number load_number(const char* at) {
    Number number;
    std::memcpy(&number, at, sizeof number);
    return number;
}

inline float coded_element(const CodedRows& rows, const char* block, std::int64_t row, std::int64_t element) {
    const char* codes = block + rows.offset_bytes + row * rows.row_bytes;
    if (rows.bits == 32) return load_number<float>(codes + element * 4);
    if (rows.bits == 16) return core::to_float(load_number<core::bf16>(codes + element * 2));
    const std::int64_t groups = rows.group == 0 ? 0 : (rows.width + rows.group - 1) / rows.group;
    const std::int64_t group = rows.group == 0 ? element : row * groups + element / rows.group;
    const char* scale = block + rows.scales_offset_bytes + group * 4;
    const auto byte = load_number<unsigned char>(codes + element * rows.bits / 8);
    const int code = byte >> (element * rows.bits % 8) & ((1 << rows.bits) - 1);
    return core::to_float(load_number<core::bf16>(scale + 2)) +
           static_cast<float>(code) * core::to_float(load_number<core::bf16>(scale));
}

}  // namespace mha2mla::kernels
