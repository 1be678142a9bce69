#include "core/dtype.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>

namespace mha2mla::core {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// The value of a half-precision pattern, from its definition.
double half_value(unsigned bits) {
    const double sign = (bits & 0x8000u) != 0 ? -1 : 1;
    const int exponent = static_cast<int>(bits >> 10 & 31u);
    const double fraction = bits & 1023u;
    if (exponent == 31) return fraction == 0 ? sign * infinity : std::nan("");
    return exponent == 0 ? sign * std::ldexp(fraction, -24) : sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(DType, EveryHalfPatternIsItsDefinitionAndRoundTrips) {
    for (unsigned bits = 0; bits < 65536; ++bits) {
        const float value = to_float(f16{static_cast<std::uint16_t>(bits)});
        if (std::isnan(half_value(bits))) {
            ASSERT_TRUE(std::isnan(value) && std::isnan(to_float(to_f16(value)))) << bits;
            continue;
        }
        ASSERT_EQ(value, half_value(bits)) << bits;
        ASSERT_EQ(to_f16(value).bits, bits);
    }
}

TEST(DType, EveryBfloatPatternRoundTrips) {
    for (unsigned bits = 0; bits < 65536; ++bits) {
        const float value = to_float(bf16{static_cast<std::uint16_t>(bits)});
        ASSERT_EQ(std::bit_cast<std::uint32_t>(value), bits << 16);
        if (std::isnan(value)) {
            ASSERT_TRUE(std::isnan(to_float(to_bf16(value)))) << bits;
        } else {
            ASSERT_EQ(to_bf16(value).bits, bits);
        }
    }
}

/// Between each two neighbours: the middle goes to the even one, the floats beside it to the nearer one.
template <typename Stored, typename Round>
void expect_nearest_even(unsigned last_finite, Round round) {
    for (unsigned bits = 0; bits < last_finite; ++bits) {
        const float low = to_float(Stored{static_cast<std::uint16_t>(bits)});
        const float high = to_float(Stored{static_cast<std::uint16_t>(bits + 1)});
        const float middle = low + (high - low) / 2;
        ASSERT_EQ(round(middle).bits, bits + (bits & 1u)) << bits;
        ASSERT_EQ(round(-middle).bits, (bits + (bits & 1u)) | 0x8000u) << bits;
        ASSERT_EQ(round(std::nextafter(middle, 0.f)).bits, bits) << bits;
        ASSERT_EQ(round(std::nextafter(middle, infinity)).bits, bits + 1) << bits;
    }
}

TEST(DType, RoundsToNearestEven) {
    expect_nearest_even<f16>(0x7bff, [](float x) { return to_f16(x); });
    expect_nearest_even<bf16>(0x7f7f, [](float x) { return to_bf16(x); });
}

TEST(DType, OverflowBecomesInfinity) {
    EXPECT_EQ(to_f16(65504.f).bits, 0x7bff);
    EXPECT_EQ(to_f16(std::nextafter(65520.f, 0.f)).bits, 0x7bff);
    EXPECT_EQ(to_f16(65520.f).bits, 0x7c00);
    EXPECT_EQ(to_f16(-1e30f).bits, 0xfc00);
    EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()).bits, 0x7f80);
    EXPECT_EQ(to_bf16(-infinity).bits, 0xff80);
}

TEST(DType, NanWithLowBitsStaysNan) {
    const float nan = std::bit_cast<float>(0x7f800001u);
    EXPECT_TRUE(std::isnan(to_float(to_bf16(nan))));
    EXPECT_TRUE(std::isnan(to_float(to_f16(nan))));
}

TEST(DType, SizesAndNames) {
    EXPECT_EQ(size_of(DType::f32), 4u);
    EXPECT_EQ(size_of(DType::f16), 2u);
    EXPECT_EQ(size_of(DType::bf16), 2u);
    EXPECT_EQ(name_of(DType::f32), "f32");
    EXPECT_EQ(name_of(DType::bf16), "bf16");
}

}  // namespace
}  // namespace mha2mla::core
