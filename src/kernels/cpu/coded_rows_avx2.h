#pragma once

#include <cstring>

#include "kernels/cpu/coded_rows.h"
#include "kernels/cpu/scale_vectors_avx2.h"

/// Coded rows to floats, eight elements at a time. Included by *_avx2.cpp, and of internal linkage, as
/// vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// Where rows of floats go.
struct FloatRows {
    float* data;
    std::int64_t stride;
};

__m256 widened(const core::bf16* x) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
__m256 widened(const float* x) { return Avx2::load(x); }

/// Rows of numbers as floats.
template <class Element>
void widen_rows(const char* rows, std::int64_t row_bytes, RowRange range, std::int64_t width, FloatRows out) {
    for (std::int64_t r = range.first; r < range.first + range.count; ++r, out.data += out.stride) {
        const auto* row = reinterpret_cast<const Element*>(rows + r * row_bytes);
        std::int64_t i = 0;
        for (; i + 8 <= width; i += 8) Avx2::store(out.data + i, widened(row + i));
        for (; i < width; ++i) out.data[i] = core::to_float(row[i]);
    }
}

/// Eight codes from a multiple of eight on. Bytes beyond those of `count` codes are not read.
template <int Bits>
__m256 codes_at(const char* codes, std::int64_t element, std::int64_t count = 8) {
    std::uint64_t word = 0;
    const char* at = codes + element * Bits / 8;
    if (count >= 8) {
        std::memcpy(&word, at, Bits);
    } else {
        for (std::int64_t i = 0; i < (count * Bits + 7) / 8; ++i) {
            word |= std::uint64_t{static_cast<unsigned char>(at[i])} << (8 * i);
        }
    }
    if constexpr (Bits == 8) {
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(word))));
    } else {
        const __m256i shifts = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(Bits));
        const __m256i spread = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(word)), shifts);
        return _mm256_cvtepi32_ps(_mm256_and_si256(spread, _mm256_set1_epi32((1 << Bits) - 1)));
    }
}

/// Rows whose groups lie within the row.
template <int Bits>
void load_grouped(const CodedRows& rows, const char* block, RowRange range, FloatRows out) {
    for_each_group(
        rows, block, range, [&](const CodedGroup& group) __attribute__((always_inline)) {
            const ScaleVectors s = ScaleVectors::of_group(group.scales);
            float* const row = out.data + group.row * out.stride;
            std::int64_t i = group.first;
            for (; i + 8 <= group.end; i += 8) {
                Avx2::store(row + i, Avx2::fma(codes_at<Bits>(group.codes, i), s.scale, s.zero));
            }
            if (i == group.end) return;
            Avx2::store(row + i, Avx2::fma(codes_at<Bits>(group.codes, i, group.end - i), s.scale, s.zero));
        });
}

/// Rows that share a scale in each channel.
template <int Bits>
void load_by_channel(const CodedRows& rows, const char* block, RowRange range, FloatRows out) {
    for (std::int64_t i = 0; i < rows.width; i += 8) {
        const std::int64_t count = rows.width - i;
        const ScaleVectors s = ScaleVectors::of_channels(block + rows.scales_offset_bytes + i * 4, count);
        const char* codes = block + rows.offset_bytes + range.first * rows.row_bytes;
        for (std::int64_t r = 0; r < range.count; ++r, codes += rows.row_bytes) {
            Avx2::store(out.data + r * out.stride + i, Avx2::fma(codes_at<Bits>(codes, i, count), s.scale, s.zero));
        }
    }
}

template <int Bits>
void load_codes(const CodedRows& rows, const char* block, RowRange range, FloatRows out) {
    if (rows.group == 0) {
        load_by_channel<Bits>(rows, block, range, out);
    } else {
        load_grouped<Bits>(rows, block, range, out);
    }
}

/// Rows as floats. May write up to seven floats behind each row, before the rows after it.
void load_coded(const CodedRows& rows, const char* block, RowRange range, FloatRows out) {
    switch (rows.bits) {
        case 2: return load_codes<2>(rows, block, range, out);
        case 4: return load_codes<4>(rows, block, range, out);
        case 8: return load_codes<8>(rows, block, range, out);
        case 16: return widen_rows<core::bf16>(block + rows.offset_bytes, rows.row_bytes, range, rows.width, out);
        default: return widen_rows<float>(block + rows.offset_bytes, rows.row_bytes, range, rows.width, out);
    }
}

}  // namespace
}  // namespace mha2mla::kernels
