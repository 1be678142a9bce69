#pragma once

#include <cstring>

#include "kernels/cpu/float_attention_avx2.h"

/// A sealed page as code_attention_avx2.h multiplies it: latents of 4 bits and rotary keys of 4 or 8 whose scales
/// belong to channels, spread to a digit a byte. A code of 8 bits is two digits of 4 bits, of which the high one has 16
/// times the scale and no zero. Included by *_avx2.cpp, and of internal linkage, as vector_avx2.h says.
namespace mha2mla::kernels {
namespace {

/// A page in the order that the products read, and the rounded operands that meet it. Of a token's key come the low
/// digits of the first part, then its high ones if it has 8 bits, then those of the second part; each run of digits
/// fills whole vectors, with scales of zero behind the last channel. The values are the first run.
struct CodeTile {
    std::int64_t key_bytes = 0;              // digits of a token, one a byte
    std::int64_t value_bytes = 0;            // those of its value
    unsigned char* keys = nullptr;           // [64 tokens, key_bytes]
    unsigned char* values = nullptr;         // [value_bytes / 32, 64 / 4 quads of tokens, 128]: see interleave_quad
    float* scale = nullptr;                  // [key_bytes]
    float* zero = nullptr;                   // [key_bytes]
    float* query = nullptr;                  // [rows, key_bytes], once for each digit
    float* folded = nullptr;                 // [key_bytes], the query of one row times the scales
    signed char* query_steps = nullptr;      // [rows, key_bytes], the same, rounded
    unsigned char* probabilities = nullptr;  // [rows, 64], in steps
    float* query_step = nullptr;             // [rows]
    float* zero_score = nullptr;             // [rows], the score of a key whose codes are all zero
    float* probability_step = nullptr;       // [rows]
    float* probability_sum = nullptr;        // [rows], in steps
};

constexpr std::int64_t code_vector = 32;  // bytes
constexpr std::int64_t quad_tokens = 4;
constexpr std::int64_t quad_bytes = quad_tokens * code_vector;

/// Digits of 4 bits.
int digits_of(const CodedRows& rows) { return rows.bits / 4; }

bool has_digits_by_channel(const CodedRows& rows) { return rows.group == 0 && (rows.bits == 4 || rows.bits == 8); }

/// Latents of 4 bits and rotary keys of 4 or 8.
bool multiplies_codes(const AttentionParams& params) {
    const CodedRows& latent = params.sealed.keys[0];
    const CodedRows& rotary = params.sealed.keys[1];
    return has_digits_by_channel(latent) && latent.bits == 4 && latent.width == params.value_width &&
           (rotary.width == 0 || has_digits_by_channel(rotary));
}

/// A whole sealed page. Parts of one are left to floats.
bool is_code_page(const KeyTile& cached) {
    return cached.sealed && cached.is_latent() && cached.tokens == most_tile_tokens;
}

/// A run of digits in a token's key.
struct DigitRun {
    const CodedRows* part;
    int digit;             // 0: the low one
    std::int64_t channel;  // of the key, where the part begins
    std::int64_t column;   // of CodeTile::keys, where the run begins
    std::int64_t bytes() const { return round_up(part->width, code_vector); }
};

template <class Visit>
void for_each_run(const SealedFormat& format, const Visit& visit) {
    std::int64_t channel = 0;
    std::int64_t column = 0;
    for (const CodedRows& part : format.keys) {
        if (part.width == 0) continue;
        for (int digit = 0; digit < digits_of(part); ++digit) {
            const DigitRun run{&part, digit, channel, column};
            visit(run);
            column += run.bytes();
        }
        channel += part.width;
    }
}

CodeTile code_tile_of(const AttentionParams& params, const RowBlock& block) {
    CodeTile tile{.value_bytes = round_up(params.value_width, code_vector)};
    for_each_run(params.sealed, [&](const DigitRun& run) { tile.key_bytes += run.bytes(); });
    char* at = block.codes;
    const auto take = [&]<class T>(T*& part, std::int64_t count) {
        part = reinterpret_cast<T*>(at);
        at += count * static_cast<std::int64_t>(sizeof(T));
    };
    take(tile.keys, most_tile_tokens * tile.key_bytes);
    take(tile.values, most_tile_tokens * tile.value_bytes);
    take(tile.query, most_block_rows * tile.key_bytes);
    take(tile.query_steps, most_block_rows * tile.key_bytes);
    take(tile.probabilities, most_block_rows * most_tile_tokens);
    for (float** of_channels : {&tile.scale, &tile.zero, &tile.folded}) take(*of_channels, tile.key_bytes);
    for (float** of_rows : {&tile.query_step, &tile.zero_score, &tile.probability_step, &tile.probability_sum}) {
        take(*of_rows, most_block_rows);
    }
    return tile;
}

/// The scaled queries of the block, a column for each digit.
void spread_queries(const AttentionParams& params, const RowBlock& block, const CodeTile& tile) {
    const std::int64_t floats = query_floats(params);
    for (std::int64_t row = 0; row < block.rows; ++row) {
        const float* query = reinterpret_cast<const float*>(block.query) + row * floats;
        for_each_run(params.sealed, [&](const DigitRun& run) {
            float* to = tile.query + row * tile.key_bytes + run.column;
            for (std::int64_t i = 0; i < run.part->width; ++i) to[i] = query[run.channel + i];
            for (std::int64_t i = run.part->width; i < run.bytes(); ++i) to[i] = 0;
        });
    }
}

void store_bytes(void* at, __m256i bytes) { _mm256_storeu_si256(static_cast<__m256i*>(at), bytes); }

/// 32 digits of which the first code lies at `at`.
template <int Bits, int Digit>
__m256i digits_at(const char* at) {
    const __m256i low_bits = _mm256_set1_epi8(0x0f);
    if constexpr (Bits == 8) return _mm256_and_si256(_mm256_srli_epi16(Avx2::load_words(at), 4 * Digit), low_bits);
    const __m256i pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    return _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4)), low_bits);
}

/// Up to 32 digits at the end of a page's rows, behind which nothing is read.
template <int Bits, int Digit>
__m256i last_digits(const char* at, std::int64_t bytes) {
    alignas(32) char codes[code_vector] = {};
    std::memcpy(codes, at, static_cast<std::size_t>(bytes));
    return digits_at<Bits, Digit>(codes);
}

/// A run's digits of all tokens. Behind the last channel come any digits: they meet scales of zero.
template <int Bits, int Digit>
void load_digits(const DigitRun& run, const char* block, unsigned char* to, std::int64_t stride) {
    constexpr std::int64_t vector_bytes = code_vector * Bits / 8;
    const CodedRows rows = *run.part;
    const char* row = block + rows.offset_bytes;
    const char* const last_start = row + most_tile_tokens * rows.row_bytes - vector_bytes;
    for (std::int64_t t = 0; t < most_tile_tokens; ++t, row += rows.row_bytes, to += stride) {
        const char* at = row;
        for (std::int64_t i = 0; i < rows.width; i += code_vector, at += vector_bytes) {
            store_bytes(to + i, at <= last_start ? digits_at<Bits, Digit>(at)
                                                 : last_digits<Bits, Digit>(at, last_start + vector_bytes - at));
        }
    }
}

/// Scales and zeros of a run as floats. A high digit counts 16 times, and the zero comes with the low one.
void load_scales(const DigitRun& run, const char* block, const CodeTile& tile) {
    const __m256 weight = Avx2::set(run.digit == 0 ? 1.0F : 16.0F);
    const __m256 zeros = Avx2::set(run.digit == 0 ? 1.0F : 0.0F);
    const char* scales = block + run.part->scales_offset_bytes;
    for (std::int64_t i = 0; i < run.bytes(); i += 8) {
        ScaleVectors s{Avx2::zero(), Avx2::zero()};
        if (i < run.part->width) s = ScaleVectors::of_channels(scales + i * 4, run.part->width - i);
        Avx2::store(tile.scale + run.column + i, Avx2::mul(s.scale, weight));
        Avx2::store(tile.zero + run.column + i, Avx2::mul(s.zero, zeros));
    }
}

/// Values are kept as digits - 8, from -8 to 7: twice as many products fit a 16-bit sum.
constexpr int middle_digit = 8;

/// The values of 32 channels in four tokens, so that the tokens of a channel lie side by side. Unpacking works within
/// 16 bytes: vector v holds channels 4 v to 4 v + 3, then 16 + 4 v to 16 + 4 v + 3.
void interleave_quad(const unsigned char* keys, std::int64_t stride, unsigned char* quad) {
    const auto token = [&](int t) {
        return _mm256_sub_epi8(Avx2::load_words(keys + t * stride), _mm256_set1_epi8(middle_digit));
    };
    const __m256i a = token(0), b = token(1), c = token(2), d = token(3);
    const __m256i low_ab = _mm256_unpacklo_epi8(a, b), high_ab = _mm256_unpackhi_epi8(a, b);
    const __m256i low_cd = _mm256_unpacklo_epi8(c, d), high_cd = _mm256_unpackhi_epi8(c, d);
    store_bytes(quad, _mm256_unpacklo_epi16(low_ab, low_cd));
    store_bytes(quad + code_vector, _mm256_unpackhi_epi16(low_ab, low_cd));
    store_bytes(quad + 2 * code_vector, _mm256_unpacklo_epi16(high_ab, high_cd));
    store_bytes(quad + 3 * code_vector, _mm256_unpackhi_epi16(high_ab, high_cd));
}

void load_page(const AttentionParams& params, const char* block, const CodeTile& tile) {
    for_each_run(params.sealed, [&](const DigitRun& run) {
        const auto load = run.part->bits == 4 ? load_digits<4, 0>
                          : run.digit == 0    ? load_digits<8, 0>
                                              : load_digits<8, 1>;
        load(run, block, tile.keys + run.column, tile.key_bytes);
        load_scales(run, block, tile);
    });
    unsigned char* quad = tile.values;
    for (std::int64_t i = 0; i < tile.value_bytes; i += code_vector) {
        for (std::int64_t t = 0; t < most_tile_tokens; t += quad_tokens, quad += quad_bytes) {
            interleave_quad(tile.keys + t * tile.key_bytes + i, tile.key_bytes, quad);
        }
    }
}

}  // namespace
}  // namespace mha2mla::kernels
