#include "checkpoint/gguf_blocks.h"

#include <array>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <utility>
#include <vector>

#include "core/dtype.h"

// Block layouts as in ggml-common.h of github.com/ggml-org/ggml: little-endian structs without padding. d and m are a
// block's scale and minimum, always F16; q are its codes.
namespace mha2mla::checkpoint {
namespace {

using Bytes = const std::uint8_t*;

template <typename Stored>
float stored_at(Bytes data) {
    Stored stored;
    std::memcpy(&stored, data, sizeof(Stored));
    return core::to_float(stored);
}

float half_at(Bytes data) { return stored_at<core::f16>(data); }

int signed_at(Bytes data) { return static_cast<std::int8_t>(*data); }

std::uint32_t bits_at(Bytes data) {
    std::uint32_t bits;
    std::memcpy(&bits, data, sizeof(bits));
    return bits;
}

int low(int byte) { return byte & 15; }
int high(int byte) { return byte >> 4; }
int bit(std::uint32_t bits, int index) { return static_cast<int>(bits >> index & 1u); }
float real(int code) { return static_cast<float>(code); }

template <typename Stored>
void plain(Bytes block, float* out) {
    out[0] = stored_at<Stored>(block);
}

// Blocks of 32: byte i holds element i in its low half and element i + 16 in its high half.

void q4_0(Bytes block, float* out) {  // d, 16 bytes of q
    const float d = half_at(block);
    const Bytes q = block + 2;
    for (int i = 0; i < 16; ++i) {
        out[i] = d * real(low(q[i]) - 8);
        out[i + 16] = d * real(high(q[i]) - 8);
    }
}

void q4_1(Bytes block, float* out) {  // d, m, 16 bytes of q
    const float d = half_at(block);
    const float m = half_at(block + 2);
    const Bytes q = block + 4;
    for (int i = 0; i < 16; ++i) {
        out[i] = d * real(low(q[i])) + m;
        out[i + 16] = d * real(high(q[i])) + m;
    }
}

void q4_0_codes(Bytes block, core::CodeGroup& out) {
    std::memcpy(&out.scale, block, 2);
    out.minimum = core::to_f16(-8 * half_at(block));
    std::memcpy(out.codes.data(), block + 2, out.codes.size());
}

void q4_1_codes(Bytes block, core::CodeGroup& out) {
    std::memcpy(&out.scale, block, 2);
    std::memcpy(&out.minimum, block + 2, 2);
    std::memcpy(out.codes.data(), block + 4, out.codes.size());
}

void q5_0(Bytes block, float* out) {  // d, 32 fifth bits, 16 bytes of q
    const float d = half_at(block);
    const std::uint32_t fifth = bits_at(block + 2);
    const Bytes q = block + 6;
    for (int i = 0; i < 16; ++i) {
        out[i] = d * real((low(q[i]) | bit(fifth, i) << 4) - 16);
        out[i + 16] = d * real((high(q[i]) | bit(fifth, i + 16) << 4) - 16);
    }
}

void q5_1(Bytes block, float* out) {  // d, m, 32 fifth bits, 16 bytes of q
    const float d = half_at(block);
    const float m = half_at(block + 2);
    const std::uint32_t fifth = bits_at(block + 4);
    const Bytes q = block + 8;
    for (int i = 0; i < 16; ++i) {
        out[i] = d * real(low(q[i]) | bit(fifth, i) << 4) + m;
        out[i + 16] = d * real(high(q[i]) | bit(fifth, i + 16) << 4) + m;
    }
}

void q8_0(Bytes block, float* out) {  // d, 32 signed bytes
    const float d = half_at(block);
    for (int i = 0; i < 32; ++i) out[i] = d * real(signed_at(block + 2 + i));
}

// K types: blocks of 256, here 8 groups g of 32 elements i. Scales belong to 16 elements (index 2g + i/16) in Q2_K,
// Q3_K and Q6_K, to a group in Q4_K and Q5_K.

/// Element i of group g where a byte holds the same element of four groups, two bits each.
int two_bits(Bytes q, int g, int i) { return q[g / 4 * 32 + i] >> 2 * (g % 4) & 3; }

/// Element i of group g where a byte holds the same element of two groups, four bits each.
int four_bits(Bytes q, int g, int i) { return q[g / 2 * 32 + i] >> 4 * (g % 2) & 15; }

void q2_k(Bytes block, float* out) {  // 16 scales and minima of 4 bits, 64 bytes of q, d, m
    const Bytes scales = block;
    const Bytes q = block + 16;
    const float d = half_at(block + 80);
    const float m = half_at(block + 82);
    for (int g = 0; g < 8; ++g) {
        for (int i = 0; i < 32; ++i) {
            const int scale = scales[2 * g + i / 16];
            out[32 * g + i] = d * real(low(scale)) * real(two_bits(q, g, i)) - m * real(high(scale));
        }
    }
}

/// Scale s of 16: its low four bits are in the first 8 bytes, its upper two in the last 4.
int q3_k_scale(Bytes scales, int s) {
    const int lower = s < 8 ? low(scales[s]) : high(scales[s - 8]);
    const int upper = scales[8 + s % 4] >> 2 * (s / 4) & 3;
    return (lower | upper << 4) - 32;
}

void q3_k(Bytes block, float* out) {  // 32 bytes of third bits, 64 bytes of q, 12 bytes of scales, d
    const Bytes third = block;
    const Bytes q = block + 32;
    const Bytes scales = block + 96;
    const float d = half_at(block + 108);
    for (int g = 0; g < 8; ++g) {
        for (int i = 0; i < 32; ++i) {
            const int code = (two_bits(q, g, i) | bit(third[i], g) << 2) - 4;
            out[32 * g + i] = d * real(q3_k_scale(scales, 2 * g + i / 16)) * real(code);
        }
    }
}

/// Scale and minimum of group g: six bits each in 12 bytes. The first four groups' lie whole in bytes g and g + 4,
/// whose top two bits complete those of the last four.
std::pair<int, int> k_scale(Bytes packed, int g) {
    if (g < 4) return {packed[g] & 63, packed[g + 4] & 63};
    return {low(packed[g + 4]) | packed[g - 4] >> 6 << 4, high(packed[g + 4]) | packed[g] >> 6 << 4};
}

void q4_k(Bytes block, float* out) {  // d, m, 12 bytes of scales, 128 bytes of q
    const float d = half_at(block);
    const float m = half_at(block + 2);
    for (int g = 0; g < 8; ++g) {
        const auto [scale, minimum] = k_scale(block + 4, g);
        for (int i = 0; i < 32; ++i) {
            out[32 * g + i] = d * real(scale) * real(four_bits(block + 16, g, i)) - m * real(minimum);
        }
    }
}

void q5_k(Bytes block, float* out) {  // d, m, 12 bytes of scales, 32 bytes of fifth bits, 128 bytes of q
    const float d = half_at(block);
    const float m = half_at(block + 2);
    const Bytes fifth = block + 16;
    for (int g = 0; g < 8; ++g) {
        const auto [scale, minimum] = k_scale(block + 4, g);
        for (int i = 0; i < 32; ++i) {
            const int code = four_bits(block + 48, g, i) | bit(fifth[i], g) << 4;
            out[32 * g + i] = d * real(scale) * real(code) - m * real(minimum);
        }
    }
}

void q6_k(Bytes block, float* out) {  // 128 bytes of low and 64 of high bits, 16 signed scales, d
    const Bytes upper = block + 128;
    const Bytes scales = block + 192;
    const float d = half_at(block + 208);
    for (int g = 0; g < 8; ++g) {
        const Bytes lower = block + g / 4 * 64 + g % 2 * 32;
        for (int i = 0; i < 32; ++i) {
            const int code = (lower[i] >> g % 4 / 2 * 4 & 15) | two_bits(upper, g, i) << 4;
            out[32 * g + i] = d * real(signed_at(scales + 2 * g + i / 16)) * real(code - 32);
        }
    }
}

template <void (*Block)(Bytes, float*), int Elements, int BytesEach>
void each_block(const std::byte* data, std::int64_t blocks, float* out) {
    const auto* bytes = reinterpret_cast<Bytes>(data);
    for (std::int64_t i = 0; i < blocks; ++i) Block(bytes + i * BytesEach, out + i * Elements);
}

template <void (*Block)(Bytes, core::CodeGroup&), int BytesEach>
void each_group(const std::byte* data, std::int64_t blocks, core::CodeGroup* out) {
    const auto* bytes = reinterpret_cast<Bytes>(data);
    for (std::int64_t i = 0; i < blocks; ++i) Block(bytes + i * BytesEach, out[i]);
}

template <void (*Block)(Bytes, float*), int Elements, int BytesEach>
constexpr BlockType block_type(std::uint32_t id, const char* name) {
    return {id, name, Elements, BytesEach, each_block<Block, Elements, BytesEach>};
}

/// Of 32 elements, with codes.
template <void (*Block)(Bytes, float*), void (*Codes)(Bytes, core::CodeGroup&), int BytesEach>
constexpr BlockType coded_type(std::uint32_t id, const char* name) {
    auto type = block_type<Block, 32, BytesEach>(id, name);
    type.codes = each_group<Codes, BytesEach>;
    return type;
}

constexpr std::array block_types{block_type<plain<float>, 1, 4>(0, "F32"),
                                 block_type<plain<core::f16>, 1, 2>(1, "F16"),
                                 coded_type<q4_0, q4_0_codes, 18>(2, "Q4_0"),
                                 coded_type<q4_1, q4_1_codes, 20>(3, "Q4_1"),
                                 block_type<q5_0, 32, 22>(6, "Q5_0"),
                                 block_type<q5_1, 32, 24>(7, "Q5_1"),
                                 block_type<q8_0, 32, 34>(8, "Q8_0"),
                                 block_type<q2_k, 256, 84>(10, "Q2_K"),
                                 block_type<q3_k, 256, 110>(11, "Q3_K"),
                                 block_type<q4_k, 256, 144>(12, "Q4_K"),
                                 block_type<q5_k, 256, 176>(13, "Q5_K"),
                                 block_type<q6_k, 256, 210>(14, "Q6_K"),
                                 block_type<plain<core::bf16>, 1, 2>(30, "BF16")};

struct TypeName {
    std::uint32_t id;
    const char* name;
};

constexpr std::array other_types{
    TypeName{9, "Q8_1"},     TypeName{15, "Q8_K"},   TypeName{16, "IQ2_XXS"}, TypeName{17, "IQ2_XS"},
    TypeName{18, "IQ3_XXS"}, TypeName{19, "IQ1_S"},  TypeName{20, "IQ4_NL"},  TypeName{21, "IQ3_S"},
    TypeName{22, "IQ2_S"},   TypeName{23, "IQ4_XS"}, TypeName{24, "I8"},      TypeName{25, "I16"},
    TypeName{26, "I32"},     TypeName{27, "I64"},    TypeName{28, "F64"},     TypeName{29, "IQ1_M"},
    TypeName{34, "TQ1_0"},   TypeName{35, "TQ2_0"},  TypeName{39, "MXFP4"}};

}  // namespace

const BlockType* find_block_type(std::uint32_t id) {
    for (const auto& type : block_types) {
        if (type.id == id) return &type;
    }
    return nullptr;
}

std::string supported_block_types() {
    std::vector<const char*> names;
    for (const auto& type : block_types) names.push_back(type.name);
    return fmt::format("{}", fmt::join(names, ", "));
}

std::string stored_type_name(std::uint32_t id) {
    for (const auto& type : other_types) {
        if (type.id == id) return type.name;
    }
    const auto* type = find_block_type(id);
    return type != nullptr ? type->name : fmt::format("number {}", id);
}

}  // namespace mha2mla::checkpoint
