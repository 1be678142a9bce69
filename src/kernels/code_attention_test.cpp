#include "kernels/sealed_attention_cases.h"

/// Sealed pages whose codes are multiplied as they are: what is rounded, and what is not.
namespace mha2mla::kernels::sealed {
namespace {

// All queries, codes and probabilities as large as they get: no sum of products may leave its bits. Logits reach
// 60,000, and an overflow would cost thousands.
void expect_no_overflow(const Case& test_case) {
    SCOPED_TRACE(label(test_case));
    const Shape& shape = test_case.shape;
    const Cache cache(test_case);
    for (const float sign : {-127.F, 127.F}) {
        const std::vector<float> q(shape.rows() * shape.key_width(), sign);
        const Attended attended = attend(test_case, cache, q);
        double max = -1e30;
        for (std::int64_t t = 0; t < shape.keys; ++t) max = std::max(max, logit(shape, cache, q, 0, t));
        EXPECT_NEAR(attended.max[0], max, 0.1);
    }
    const Attended means = attend(test_case, cache, std::vector<float>(shape.rows() * shape.key_width(), 0));
    for (std::int64_t i = 0; i < shape.values(); ++i) {
        const double mean = (cache.value(0, i) + cache.value(64, i)) / 2;
        ASSERT_NEAR(means.out[i], mean, 1e-4) << i;
    }
}

TEST(CodeAttention, ManyChannelsDoNotOverflow) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t heads : {3, 21}) {
            check({isa, int4_channels, int8_channels, {heads, 1, 1031, 260, 0, 130}});
            for (const int byte : {0x00, 0xff}) {
                expect_no_overflow({isa, int4_channels, int4_channels, {heads, 1, 1024, 64, 0, 128}, 0, {true, byte}});
            }
        }
    }
}

/// Few rows over such pages, in vectors of 16.
bool has_tokens_in_lanes(const Case& test_case) {
    const std::int64_t most_rows = test_case.isa == Isa::avx512 ? 12 : test_case.isa == Isa::amx ? 4 : 0;
    return test_case.shape.rows() <= most_rows;
}

/// Queries of a row that rounding leaves as they are where scales are one. Those of 4-bit codes may be up to 127, and
/// those of 8-bit codes, whose high digits count 16 times, up to 7. On AVX-512 8-bit codes are factors themselves: with
/// tokens in lanes they have a step of their own; else two 4-bit codes l and h of a byte have the factors f_h = 16 n
/// and f_l = m + n, of whole n and m up to 127.
std::vector<float> whole_queries(const Case& test_case, core::Random& random) {
    const auto step = [&](std::int64_t most) {
        return static_cast<float>(static_cast<std::int64_t>(random.below(2 * most + 1)) - most);
    };
    const Shape& shape = test_case.shape;
    const bool in_lanes = has_tokens_in_lanes(test_case), by_bytes = test_case.isa == Isa::avx512 && !in_lanes;
    std::vector<float> q(shape.key_width());
    for (std::int64_t i = 0; i < shape.key_width(); ++i) {
        const std::int64_t channel = i < shape.first_width ? i : i - shape.first_width;
        const bool has_digits = i < shape.first_width || test_case.second.bits == 4;
        if (!by_bytes) {
            const bool is_largest = in_lanes ? channel == 0 : i == 0;
            q[i] = is_largest ? 127 : step(has_digits || in_lanes ? 127 : 7);
        } else if (has_digits && channel % 2 == 1) {
            q[i] = 16 * (i == 1 ? 127 : step(127));
            q[i - 1] += q[i] / 16;
        } else {
            q[i] = i == 0 ? 127 : step(127);
        }
    }
    return q;
}

void expect_exact_scores(const Case& test_case) {
    SCOPED_TRACE(label(test_case));
    const Shape& shape = test_case.shape;
    const Cache cache(test_case);
    core::Random random(8);
    std::vector<float> q;
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        const std::vector<float> of_row = whole_queries(test_case, random);
        q.insert(q.end(), of_row.begin(), of_row.end());
    }
    std::vector<double> expected(shape.rows(), -1e30);
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        for (std::int64_t t = 0; t < shape.keys; ++t) {
            expected[row] = std::max(expected[row], logit(shape, cache, q, row, t));
        }
    }
    const double largest = *std::max_element(expected.begin(), expected.end());
    const std::vector<float> max = attend(test_case, cache, q).max;
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        EXPECT_NEAR(max[row], expected[row], 4e-7 * largest) << "row " << row;
    }
}

TEST(CodeAttention, WholeStepsOfQueriesAreExact) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t heads : {9, 21}) {
            expect_exact_scores(
                {isa, int4_channels, int8_channels, {heads, 1, 75, 21, 0, 128}, 0, {.unit_scales = true}});
            expect_exact_scores(
                {isa, int4_channels, int4_channels, {heads, 1, 75, 21, 0, 128}, 0, {.unit_scales = true}});
        }
    }
}

void expect_middle_codes(const Case& test_case) {
    SCOPED_TRACE(label(test_case));
    const Shape& shape = test_case.shape;
    const Cache cache(test_case);
    std::vector<float> q(shape.rows() * shape.key_width(), 0.4F);
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        float* const of_row = &q[row * shape.key_width()];
        of_row[0] = 127 + 127.F / 16;
        of_row[1] = 127;
        if (has_tokens_in_lanes(test_case)) of_row[shape.first_width] = 127;
    }
    // 4-bit codes are half a code from the middle, 8-bit ones 8.5.
    const auto latents = static_cast<double>(shape.first_width), rotary = static_cast<double>(shape.second_width);
    const double lost =
        has_tokens_in_lanes(test_case) ? 0.45 * (latents / 2 + rotary * 8.5) : 0.3 * (latents + 2 * rotary);
    const double bound = lost / std::sqrt(static_cast<double>(shape.key_width()));
    double expected = -1e30;
    for (std::int64_t t = 0; t < shape.keys; ++t) expected = std::max(expected, logit(shape, cache, q, 0, t));
    for (const float max : attend(test_case, cache, q).max) EXPECT_NEAR(max, expected, bound);
}

// All queries but some largest are 0.4 of a step: what their rounding loses meets the middle of the codes. It would
// cost seven times as much for each channel if it met nothing, or more.
TEST(CodeAttention, WhatRoundingLosesMeetsTheMiddleOfTheCodes) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t heads : {9, 21}) {
            for (const int byte : {0x77, 0x88}) {
                expect_middle_codes({isa, int4_channels, int8_channels, {heads, 1, 75, 21, 0, 128}, 0, {true, byte}});
            }
        }
    }
}

// Equal scores give equal probabilities, whatever they are rounded to.
TEST(CodeAttention, TheMeanOfValuesIsExact) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t heads : {5, 21}) {
            const Case test_case{isa, int4_channels, int8_channels, {heads, 1, 75, 21, 0, 128}};
            const Shape& shape = test_case.shape;
            const Cache cache(test_case);
            const std::vector<float> q(shape.rows() * shape.key_width(), 0);
            const std::vector<float> out = attend(test_case, cache, q).out;
            for (std::int64_t i = 0; i < static_cast<std::int64_t>(out.size()); ++i) {
                double mean = 0;
                for (std::int64_t t = 0; t < shape.keys; ++t) mean += cache.value(t, i % shape.values()) / 128;
                ASSERT_NEAR(out[i], mean, 2e-6) << label(test_case) << " " << i;
            }
        }
    }
}

}  // namespace
}  // namespace mha2mla::kernels::sealed
