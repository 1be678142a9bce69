#pragma once

#include <cstring>

#include "kernels/kernels.h"

/// Coded rows element by element: the definition that the vector versions are held to.
namespace mha2mla::kernels {

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
