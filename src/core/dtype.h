#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mha2mla::core {

/// Element types of tensors in memory and in our checkpoints.
enum class DType { f32, f16, bf16 };

/// Bytes of one element.
constexpr std::size_t size_of(DType type) { return type == DType::f32 ? 4 : 2; }

/// "f32", "f16", "bf16".
std::string_view name_of(DType type);

/// A bfloat16 number: the upper half of a float.
struct bf16 {
    std::uint16_t bits = 0;
};

/// An IEEE half-precision number.
struct f16 {
    std::uint16_t bits = 0;
};

inline float to_float(float x) { return x; }

inline float to_float(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

/// Rounds to nearest, ties to even; NaN stays NaN.
inline bf16 to_bf16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

float to_float(f16 x);

/// Rounds to nearest, ties to even; overflow becomes infinity.
f16 to_f16(float x);

}  // namespace mha2mla::core
