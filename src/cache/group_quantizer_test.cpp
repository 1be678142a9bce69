#include "cache/group_quantizer.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace mha2mla::cache {
namespace {

struct Quantized {
    std::vector<std::uint8_t> codes;
    std::vector<GroupScale> scales;
    std::vector<float> row;  // de-quantized
};

Quantized quantize(const GroupFormat& format, const std::vector<float>& row) {
    Quantized result{.codes = std::vector<std::uint8_t>(row.size(), 0xee),
                     .scales = std::vector<GroupScale>(format.groups(row.size())),
                     .row = std::vector<float>(row.size(), -7)};
    quantize_row(format, row, result.codes, result.scales);
    dequantize_row(format, result.codes, result.scales, result.row);
    return result;
}

std::vector<float> random_row(std::size_t elements, float size, float offset, std::uint64_t seed) {
    core::Random random(seed);
    std::vector<float> row;
    for (std::size_t i = 0; i < elements; ++i)
        row.push_back(offset + size * static_cast<float>(random.uniform() - 0.5));
    return row;
}

/// The finite bf16 numbers in ascending order, without -0.
std::vector<float> bf16_numbers() {
    std::vector<float> numbers;
    for (unsigned bits = 0x7f7f; bits > 0; --bits)
        numbers.push_back(-core::to_float(core::bf16{static_cast<std::uint16_t>(bits)}));
    for (unsigned bits = 0; bits <= 0x7f7f; ++bits)
        numbers.push_back(core::to_float(core::bf16{static_cast<std::uint16_t>(bits)}));
    return numbers;
}

/// The definition in the header, by search over all bf16 numbers and all codes.
void expect_definition(const GroupFormat& format, const std::vector<float>& row) {
    static const std::vector<float> numbers = bf16_numbers();
    const auto got = quantize(format, row);
    const int last_code = (1 << format.bits) - 1;
    const auto size = static_cast<std::size_t>(format.group_elements);
    for (std::size_t first = 0; first < row.size(); first += size) {
        const std::size_t end = std::min(first + size, row.size());
        const double low = *std::min_element(row.begin() + first, row.begin() + end);
        const double high = *std::max_element(row.begin() + first, row.begin() + end);
        const double zero = *(std::upper_bound(numbers.begin(), numbers.end(), low) - 1);
        const double scale = *std::lower_bound(numbers.begin(), numbers.end(), (high - zero) / last_code);
        ASSERT_EQ(core::to_float(got.scales[first / size].zero), zero) << "element " << first;
        ASSERT_EQ(core::to_float(got.scales[first / size].scale), scale) << "element " << first;
        for (std::size_t i = first; i < end; ++i) {
            ASSERT_LE(got.codes[i], last_code);
            for (int code = 0; code <= last_code; ++code) {
                ASSERT_LE(std::abs(zero + got.codes[i] * scale - row[i]), std::abs(zero + code * scale - row[i]));
            }
            ASSERT_EQ(got.row[i], static_cast<float>(zero + got.codes[i] * scale));
        }
    }
}

TEST(GroupQuantizer, EqualsItsDefinition) {
    std::uint64_t seed = 0;
    for (const int bits : {8, 4, 2}) {
        for (const int group : {1, 32, 64}) {
            for (const float size : {1e-44f, 1e-40f, 1e-3f, 1.f, 1e4f, 1e34f}) {
                for (const float offset : {0.f, -1.f, 3.f, 1000.f}) {
                    SCOPED_TRACE(testing::Message() << bits << " bits, " << size << " around " << offset);
                    expect_definition({.bits = bits, .group_elements = group},
                                      random_row(75, size, offset * size, ++seed));
                }
            }
        }
    }
}

TEST(GroupQuantizer, NoElementMovesByMoreThanHalfAScale) {
    for (const int bits : {8, 4, 2}) {
        const GroupFormat format{.bits = bits, .group_elements = 32};
        for (std::uint64_t seed = 1; seed < 200; ++seed) {
            const auto row = random_row(80, 2.f, static_cast<float>(seed % 7), seed);
            const auto got = quantize(format, row);
            for (std::size_t i = 0; i < row.size(); ++i) {
                const float scale = core::to_float(got.scales[i / 32].scale);
                ASSERT_LE(std::abs(got.row[i] - row[i]), scale / 2 * 1.0001f) << i;
            }
        }
    }
}

TEST(GroupQuantizer, TiesGoToTheEvenCode) {
    // zero 0, scale 1: the elements are their own quotients.
    const auto got = quantize({.bits = 4, .group_elements = 8}, {0, 15, 0.5f, 1.5f, 2.5f, 3.5f, 13.5f, 14.5f});
    EXPECT_EQ(got.codes, (std::vector<std::uint8_t>{0, 15, 0, 2, 2, 4, 14, 14}));
}

TEST(GroupQuantizer, EndsOfARepresentableRangeAreExact) {
    const auto got = quantize({.bits = 2, .group_elements = 4}, {-3, 0, 3, 2});
    EXPECT_EQ(got.codes, (std::vector<std::uint8_t>{0, 2, 3, 2}));  // scale 2: 0 lies between 1 and 2, 2 is nearer to 3
    EXPECT_EQ(got.row, (std::vector<float>{-3, 1, 3, 1}));
}

TEST(GroupQuantizer, AConstantGroupStaysWhereItIs) {
    for (const float value : {0.f, -0.f, 1.f, -2.5f}) {
        const auto got = quantize({.bits = 2, .group_elements = 4}, {value, value, value, value});
        EXPECT_EQ(got.row, std::vector<float>(4, value));
        EXPECT_EQ(core::to_float(got.scales[0].scale), 0.f);
    }
    // Not a bf16 number: the last code reaches what the zero lacks.
    for (const float value : {0.3f, -0.3f, 1234.567f}) {
        for (const float x : quantize({.bits = 4, .group_elements = 4}, {value, value, value}).row)
            EXPECT_NEAR(x, value, 5e-5 * std::abs(value));
    }
}

TEST(GroupQuantizer, TheLastGroupIsShorterAndKeepsToItself) {
    std::vector<float> row(37, 1.f);
    for (std::size_t i = 32; i < 37; ++i) row[i] = static_cast<float>(i) - 32.f;
    const auto got = quantize({.bits = 8, .group_elements = 32}, row);
    ASSERT_EQ(got.scales.size(), 2u);
    EXPECT_EQ(got.row[31], 1.f);
    EXPECT_EQ(core::to_float(got.scales[1].zero), 0.f);
    EXPECT_NEAR(got.row[36], 4.f, 0.02);
    EXPECT_TRUE(quantize({.bits = 4, .group_elements = 32}, {}).row.empty());
}

TEST(GroupQuantizer, WhatIsNotFiniteOrTooLargeShowsInItsWholeGroupAndNowhereElse) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float bad : {std::nanf(""), infinity, -infinity, 1e38f, -3.4e38f}) {
        std::vector<float> row(8, 1.f);
        row[5] = bad;
        const auto got = quantize({.bits = 4, .group_elements = 4}, row);
        for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(got.row[i], 1.f) << bad;
        for (std::size_t i = 4; i < 8; ++i) EXPECT_TRUE(std::isnan(got.row[i])) << bad;
    }
}

TEST(GroupQuantizer, TheLargestRangeDoesNotOverflow) {
    const auto got = quantize({.bits = 8, .group_elements = 4}, {-largest_quantized, 0, largest_quantized});
    for (const float x : got.row) EXPECT_TRUE(std::isfinite(x));
    EXPECT_NEAR(got.row[2] / largest_quantized, 1, 0.01);
}

TEST(GroupQuantizer, BytesOfARow) {
    const GroupFormat int4{.bits = 4, .group_elements = 32};
    EXPECT_EQ(6 * int4.row_bytes(64), 240u) << "SmolLM2: 3 heads' keys and values";
    EXPECT_EQ(6 * (GroupFormat{.bits = 4, .group_elements = 64}.row_bytes(64)), 216u);
    EXPECT_EQ(int4.row_bytes(120), 60u + 4 * 4);
    EXPECT_EQ(int4.row_bytes(33), 17u + 2 * 4) << "an odd half byte rounds up";
    EXPECT_EQ((GroupFormat{.bits = 2, .group_elements = 32}.row_bytes(5)), 2u + 4);
    EXPECT_EQ(int4.row_bytes(0), 0u);
}

TEST(GroupQuantizer, ItsCallersPromisesAreChecked) {
    std::vector<float> row(4, 1.f);
    std::vector<std::uint8_t> codes(4);
    std::vector<GroupScale> scales(1);
    EXPECT_THROW(quantize_row({.bits = 3, .group_elements = 4}, row, codes, scales), std::logic_error);
    EXPECT_THROW(quantize_row({.bits = 4, .group_elements = 0}, row, codes, scales), std::logic_error);
    EXPECT_THROW(quantize_row({.bits = 4, .group_elements = 2}, row, codes, scales), std::logic_error);
}

}  // namespace
}  // namespace mha2mla::cache
