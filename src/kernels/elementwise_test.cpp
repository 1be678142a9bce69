#include <complex>
#include <cstdlib>

#include "core/error.h"
#include "kernels/test_support.h"

namespace mha2mla::kernels {
namespace {

using core::DType;

TEST(RmsNorm, EqualsDoubleSums) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t width : {1, 5, 8, 31, 576, 1000}) {
            SCOPED_TRACE(test::label(isa, DType::f32, {width}));
            const std::vector<float> x = test::random_floats(3 * width, 1, 10);
            const std::vector<float> weight = test::random_floats(width, 2);
            std::vector<float> y(3 * width + 1, -7);
            kernels(isa).rms_norm({x.data(), weight.data(), y.data(), 3, width, 1e-5f});
            for (std::int64_t row = 0; row < 3; ++row) {
                double squares = 0;
                for (std::int64_t i = 0; i < width; ++i)
                    squares += std::pow(static_cast<double>(x[row * width + i]), 2);
                const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-5);
                for (std::int64_t i = 0; i < width; ++i) {
                    const double expected = static_cast<double>(x[row * width + i]) * scale * weight[i];
                    ASSERT_NEAR(y[row * width + i], expected, std::abs(expected) * 1e-6) << row << " " << i;
                }
            }
            EXPECT_EQ(y.back(), -7) << "written beyond the last row";
        }
    }
}

TEST(Turn, IsTheProductWithTheConjugate) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t pairs : {1, 7, 16, 32, 33}) {
            SCOPED_TRACE(test::label(isa, DType::f32, {pairs}));
            const std::vector<float> x = test::random_floats(3 * 2 * pairs, 1, 10);
            const std::vector<float> cos = test::random_floats(pairs, 2), sin = test::random_floats(pairs, 3);
            std::vector<float> y(x.size() + 1, -7);
            kernels(isa).turn({x.data(), y.data(), 3, pairs, cos.data(), sin.data()});
            for (std::int64_t row = 0; row < 3; ++row) {
                for (std::int64_t i = 0; i < pairs; ++i) {
                    const std::int64_t at = row * 2 * pairs + i;
                    const std::complex<double> factor(cos[i], -sin[i]);
                    const auto expected = std::complex<double>(x[at], x[at + pairs]) * factor;
                    ASSERT_NEAR(y[at], expected.real(), 1e-5) << row << " " << i;
                    ASSERT_NEAR(y[at + pairs], expected.imag(), 1e-5) << row << " " << i;
                }
            }
            EXPECT_EQ(y.back(), -7) << "written beyond the last row";
        }
    }
}

TEST(SwiGlu, IsAccurateToAMillionth) {
    std::vector<float> gate = test::random_floats(1003, 3, 20);
    for (const float x : {0.0f, -0.0f, 1e-30f, 87.0f, -87.0f, 1000.0f}) gate.push_back(x);
    const std::vector<float> up = test::random_floats(static_cast<std::int64_t>(gate.size()), 4);
    for (const Isa isa : supported_isas()) {
        SCOPED_TRACE(name_of(isa));
        std::vector<float> y(gate.size() + 1, -7);
        kernels(isa).swiglu({gate.data(), up.data(), y.data(), static_cast<std::int64_t>(gate.size())});
        for (std::size_t i = 0; i < gate.size(); ++i) {
            const double g = gate[i];
            const double expected = g / (1 + std::exp(-g)) * static_cast<double>(up[i]);
            ASSERT_NEAR(y[i], expected, std::abs(expected) * 1e-6 + 1e-36) << g;
        }
        EXPECT_EQ(y.back(), -7) << "written beyond the end";
    }
}

TEST(SwiGlu, LargeNegativeGatesCloseAndNanStays) {
    const std::vector<float> gate = {-100, -1000, -3e38f, test::poison};
    const std::vector<float> up(4, 1);
    for (const Isa isa : supported_isas()) {
        std::vector<float> y = gate;  // in place
        kernels(isa).swiglu({y.data(), up.data(), y.data(), 4});
        for (int i = 0; i < 3; ++i) EXPECT_NEAR(y[i], 0, 1e-35) << name_of(isa) << " " << gate[i];
        EXPECT_TRUE(std::isnan(y[3])) << name_of(isa);
    }
}

// cos and sin of position * 10^-frequency.
std::vector<float> rotary_table(std::int64_t positions, std::int64_t pairs) {
    std::vector<float> table;
    for (std::int64_t p = 0; p < positions; ++p) {
        for (std::int64_t f = 0; f < pairs; ++f) {
            const double angle = static_cast<double>(p) * std::pow(10.0, -static_cast<double>(f));
            table.push_back(static_cast<float>(std::cos(angle)));
            table.push_back(static_cast<float>(std::sin(angle)));
        }
    }
    return table;
}

TEST(Rope, RotatesPairsInPlace) {
    const std::int64_t rows = 3, heads = 2, half = 5;
    const std::vector<float> table = rotary_table(10, half);
    const std::vector<float> x = test::random_floats(rows * heads * 2 * half, 6);
    for (const Isa isa : supported_isas()) {
        std::vector<float> y = x;
        RopeParams params;
        params.x = params.y = y.data();
        params.x_row_stride = params.y_row_stride = heads * 2 * half;
        params.x_head_stride = params.y_head_stride = 2 * half;
        params.half = params.pairs = params.table_pairs = half;
        params.rows = rows;
        params.heads = heads;
        params.table = table.data();
        params.first_position = 4;
        kernels(isa).rope(params);
        for (std::int64_t at = 0; at < rows * heads; ++at) {
            for (std::int64_t i = 0; i < half; ++i) {
                const float* before = &x[at * 2 * half];
                const double angle = static_cast<double>(4 + at / heads) * std::pow(10.0, -static_cast<double>(i));
                const double real = before[i] * std::cos(angle) - before[i + half] * std::sin(angle);
                const double imaginary = before[i] * std::sin(angle) + before[i + half] * std::cos(angle);
                ASSERT_NEAR(y[at * 2 * half + i], real, 1e-6);
                ASSERT_NEAR(y[at * 2 * half + half + i], imaginary, 1e-6);
            }
        }
    }
}

TEST(Rope, PicksPairsAndTheirFrequencies) {
    const std::vector<float> table = rotary_table(3, 4);
    const std::vector<float> x = {1, 2, 3, 4, 5, 6, 7, 8};  // pairs (1,5) (2,6) (3,7) (4,8)
    const std::vector<std::int32_t> pairs = {3, 1};
    const std::vector<std::int32_t> frequencies = {2, 0};
    for (const Isa isa : supported_isas()) {
        std::vector<float> y(4, test::poison);
        RopeParams params;
        params.x = x.data();
        params.y = y.data();
        params.half = params.table_pairs = 4;
        params.rows = params.heads = 1;
        params.pairs = 2;
        params.source_pairs = pairs.data();
        params.frequencies = frequencies.data();
        params.table = table.data();
        params.first_position = 2;
        kernels(isa).rope(params);
        EXPECT_NEAR(y[0], 4 * std::cos(0.02) - 8 * std::sin(0.02), 1e-5);
        EXPECT_NEAR(y[1], 2 * std::cos(2.0) - 6 * std::sin(2.0), 1e-5);
        EXPECT_NEAR(y[2], 4 * std::sin(0.02) + 8 * std::cos(0.02), 1e-5);
        EXPECT_NEAR(y[3], 2 * std::sin(2.0) + 6 * std::cos(2.0), 1e-5);
    }
}

TEST(Rope, MultipliesEachHeadsPairsByItsFactors) {
    const std::vector<float> table = rotary_table(4, 3);
    const std::vector<float> x = test::random_floats(2 * 2 * 6, 9);         // [rows, heads, 6]
    const std::vector<float> factors = test::random_floats(2 * 2 * 2, 10);  // [heads, pairs, 2]
    const std::vector<std::int32_t> pairs = {2, 0};
    for (const Isa isa : supported_isas()) {
        std::vector<float> y(2 * 2 * 4, test::poison);
        RopeParams params{.x = x.data(), .x_row_stride = 12, .x_head_stride = 6, .half = 3, .y = y.data()};
        params.y_row_stride = 8;
        params.y_head_stride = 4;
        params.rows = params.heads = params.pairs = 2;
        params.source_pairs = params.frequencies = pairs.data();
        params.factors = factors.data();
        params.table = table.data();
        params.table_pairs = 3;
        params.first_position = 1;
        kernels(isa).rope(params);
        for (std::int64_t at = 0; at < 4; ++at) {
            for (std::int64_t i = 0; i < 2; ++i) {
                const std::int64_t factor = (at % 2 * 2 + i) * 2;
                const double angle = static_cast<double>(1 + at / 2) * std::pow(10.0, -pairs[i]);
                const auto expected = std::complex<double>(x[at * 6 + pairs[i]], x[at * 6 + pairs[i] + 3]) *
                                      std::complex<double>(factors[factor], factors[factor + 1]) *
                                      std::polar(1.0, angle);
                EXPECT_NEAR(y[at * 4 + i], expected.real(), 1e-6);
                EXPECT_NEAR(y[at * 4 + 2 + i], expected.imag(), 1e-6);
            }
        }
    }
}

TEST(StoreRows, RoundsToNearestEvenAndKeepsNan) {
    // Halfway cases go to the even neighbour; the last is a NaN whose upper half alone would be infinity.
    const float hidden_nan = std::bit_cast<float>(0x7f800001u);
    const std::vector<float> x = {1.0f, 0x1.01p0f, 0x1.03p0f, 0x1.010002p0f, -INFINITY, 3.4e38f, hidden_nan};
    for (const Isa isa : supported_isas()) {
        std::vector<core::bf16> y(8, {0x1234});
        kernels(isa).store_rows({x.data(), 7, 1, 7, DType::bf16, y.data(), 14});
        const std::uint16_t expected[] = {0x3f80, 0x3f80, 0x3f82, 0x3f81, 0xff80, 0x7f80};
        for (int i = 0; i < 6; ++i) EXPECT_EQ(y[i].bits, expected[i]) << name_of(isa) << " " << i;
        EXPECT_TRUE(std::isnan(core::to_float(y[6])));
        EXPECT_EQ(y[7].bits, 0x1234) << "written beyond the width";
    }
}

TEST(StoreRows, KeepsTheStrides) {
    const std::vector<float> x = test::random_floats(3 * 10, 8);
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            test::PoisonedBytes y(3 * 48);
            kernels(isa).store_rows({x.data(), 10, 3, 9, dtype, y.data(), 48});
            for (int row = 0; row < 3; ++row) {
                for (int i = 0; i < 9; ++i) {
                    const char* at = static_cast<const char*>(y.data()) + row * 48 + i * core::size_of(dtype);
                    float value = 0;
                    test::store(x[row * 10 + i], dtype, &value);
                    EXPECT_EQ(std::memcmp(at, &value, core::size_of(dtype)), 0);
                }
                const char* after = static_cast<const char*>(y.data()) + row * 48 + 9 * core::size_of(dtype);
                EXPECT_EQ(*after, '\xff') << "written beyond the width";
            }
        }
    }
}

TEST(Dispatch, PortableIsFirstAndNamesAreKnown) {
    const std::vector<Isa> isas = supported_isas();
    ASSERT_FALSE(isas.empty());
    EXPECT_EQ(isas.front(), Isa::portable);
    for (const Isa isa : isas) EXPECT_EQ(kernels(isa).isa, isa);
}

TEST(Dispatch, TheEnvironmentForcesASet) {
    // Each name in a child of its own, since the choice is made once per process.
    for (const Isa isa : supported_isas()) {
        const std::string name(name_of(isa));
        EXPECT_EXIT(
            {
                ::setenv("MHA2MLA_ISA", name.c_str(), 1);
                std::exit(kernels().isa == isa ? 0 : 1);
            },
            testing::ExitedWithCode(0), "");
    }
    EXPECT_EXIT(
        {
            ::setenv("MHA2MLA_ISA", "sse9", 1);
            try {
                kernels();
            } catch (const core::Error& error) {
                std::exit(error.info().got == "sse9" ? 0 : 1);
            }
            std::exit(2);
        },
        testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace mha2mla::kernels
