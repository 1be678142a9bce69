#pragma once

#include <cstring>

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/scale_vectors_avx2.h"

/// The codes of sealed pages, for kernels that multiply them as they are. Included by files compiled for AVX2 and
/// beyond, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// Hands out memory, part after part.
class ScratchParts {
public:
    explicit ScratchParts(char* memory) : at_(memory) {}

    template <class T>
    void take(T*& part, std::int64_t count) {
        part = reinterpret_cast<T*>(at_);
        at_ += count * static_cast<std::int64_t>(sizeof(T));
    }

private:
    char* at_;
};

/// A whole sealed page. Parts of one are left to other numbers.
inline bool is_code_page(const KeyTile& cached) {
    return cached.sealed && cached.first_token == 0 && cached.tokens == most_tile_tokens;
}

/// Codes of a page's part. A load that would read behind its last row reads a copy instead.
class CodeReader {
public:
    CodeReader(const CodedRows& rows, const char* block)
        : rows_(block + rows.offset_bytes),
          row_bytes_(rows.row_bytes),
          end_(rows_ + most_tile_tokens * rows.row_bytes) {}

    __m256i load(std::int64_t token, std::int64_t byte) const {
        const char* at = rows_ + token * row_bytes_ + byte;
        return at + 32 <= end_ ? Avx2::load_words(at) : load_last(at);
    }
    const char* row(std::int64_t token) const { return rows_ + token * row_bytes_; }
    std::int64_t row_bytes() const { return row_bytes_; }

    /// 16 bytes of four tokens.
    void load_halves(std::int64_t token, std::int64_t byte, __m128i (&halves)[4]) const {
        const char* const at = rows_ + token * row_bytes_ + byte;
        if (at + 3 * row_bytes_ + 16 <= end_) {
            for (int i = 0; i < 4; ++i) halves[i] = load_half(at + i * row_bytes_);
        } else {
            for (int i = 0; i < 4; ++i) halves[i] = _mm256_castsi256_si128(load_last(at + i * row_bytes_));
        }
    }

private:
    static __m128i load_half(const char* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); }
    __m256i load_last(const char* at) const {
        alignas(32) char codes[32] = {};
        if (at < end_) std::memcpy(codes, at, static_cast<std::size_t>(smaller(end_ - at, 32)));
        return Avx2::load_words(codes);
    }

    const char* rows_;
    std::int64_t row_bytes_;
    const char* end_;
};

/// Scales and zeros of eight channels, zero behind the last.
inline ScaleVectors scales_at(const CodedRows& part, const char* block, std::int64_t channel) {
    if (channel >= part.width) return {Avx2::zero(), Avx2::zero()};
    return ScaleVectors::of_channels(block + part.scales_offset_bytes + channel * 4, part.width - channel);
}

/// Where scales and zeros go.
struct ScaleRows {
    float* scale;
    float* zero;
};

/// Those of a value's channels, in vectors of eight.
inline void load_value_scales(const CodedRows& rows, const char* block, std::int64_t channels, const ScaleRows& to) {
    for (std::int64_t channel = 0; channel < channels; channel += 8) {
        const ScaleVectors s = scales_at(rows, block, channel);
        Avx2::store(to.scale + channel, s.scale);
        Avx2::store(to.zero + channel, s.zero);
    }
}

}  // namespace
}  // namespace mha2mla::kernels
