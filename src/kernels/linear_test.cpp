#include "kernels/test_support.h"

namespace mha2mla::kernels {
namespace {

using core::DType;
using test::label;

struct Shape {
    std::int64_t rows;
    std::int64_t inputs;
    std::int64_t outputs;
};

// A random matrix, packed, and the values it holds.
struct Weight {
    Weight(DType dtype, std::int64_t outputs, std::int64_t inputs)
        : source(test::random_floats(outputs * inputs, 1)), bytes(packed_bytes(dtype, outputs, inputs)) {
        std::memset(bytes.data(), 0, packed_bytes(dtype, outputs, inputs));
        // In two pieces, the second of which begins inside a tile.
        const std::int64_t half = outputs / 2;
        pack_rows({source.data(), 0, half, dtype, inputs, bytes.data()});
        pack_rows({source.data() + half * inputs, half, outputs - half, dtype, inputs, bytes.data()});
        packed = {dtype, outputs, inputs, bytes.data()};
    }

    double at(std::int64_t output, std::int64_t input) const {
        return test::stored(source[static_cast<std::size_t>(output * packed.inputs + input)], packed.dtype);
    }

    std::vector<float> source;
    test::PoisonedBytes bytes;
    PackedMatrix packed;
};

struct Options {
    bool bias = false;
    bool accumulate = false;
    std::int64_t first_tile = 0;
    std::int64_t tiles = -1;  // all
};

// Runs a kernel on strided, poisoned memory and compares every element with sums in double.
void check_linear(Isa isa, DType dtype, const Shape& shape, const Options& options) {
    SCOPED_TRACE(label(isa, dtype, {shape.rows, shape.inputs, shape.outputs, options.first_tile, options.tiles}));
    const Weight weight(dtype, shape.outputs, shape.inputs);
    const std::int64_t x_stride = shape.inputs + 3;
    const std::int64_t y_stride = shape.outputs + 5;
    const std::vector<float> values = test::random_floats(shape.rows * x_stride, 2);
    std::vector<float> x(values.size(), test::poison);
    for (std::int64_t r = 0; r < shape.rows; ++r) {
        std::copy_n(&values[r * x_stride], shape.inputs, &x[r * x_stride]);
    }
    const std::vector<float> bias = test::random_floats(shape.outputs, 3);
    const std::vector<float> before = test::random_floats(shape.rows * y_stride, 4);
    std::vector<float> y = before;
    test::PoisonedBytes scratch(linear_scratch_bytes(shape.rows, shape.inputs));
    const std::int64_t tiles = options.tiles < 0 ? weight.packed.tiles() : options.tiles;
    LinearParams params;
    params.x = x.data();
    params.x_stride = x_stride;
    params.rows = shape.rows;
    params.weight = weight.packed;
    params.bias = options.bias ? bias.data() : nullptr;
    params.y = y.data();
    params.y_stride = y_stride;
    params.accumulate = options.accumulate;
    params.first_tile = options.first_tile;
    params.tiles = tiles;
    params.scratch = scratch.data();
    kernels(isa).linear(params);

    for (std::int64_t r = 0; r < shape.rows; ++r) {
        for (std::int64_t o = 0; o < y_stride; ++o) {
            const std::int64_t at = r * y_stride + o;
            const std::int64_t tile = o / tile_rows;
            const bool ours = o < shape.outputs && tile >= options.first_tile && tile < options.first_tile + tiles;
            if (!ours) {
                ASSERT_EQ(y[at], before[at]) << "written outside the call's tiles, row " << r << " output " << o;
                continue;
            }
            double expected = options.accumulate ? static_cast<double>(before[at]) : 0.0;
            if (options.bias) expected += static_cast<double>(bias[o]);
            double magnitude = std::abs(expected);
            for (std::int64_t i = 0; i < shape.inputs; ++i) {
                const double product = static_cast<double>(x[r * x_stride + i]) * weight.at(o, i);
                expected += product;
                magnitude += std::abs(product);
            }
            // Rounded inputs, and the rounding of sums in float.
            const double tolerance = magnitude * (test::epsilon(dtype) + 8 * 0x1p-24);
            ASSERT_NEAR(y[at], expected, tolerance) << "row " << r << " output " << o;
        }
    }
}

TEST(Linear, EqualsDoubleSumsForAnyShape) {
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            for (std::int64_t rows = 1; rows <= 14; ++rows) check_linear(isa, dtype, {rows, 70, 100}, {});
            for (const Shape& shape : {Shape{1, 1, 1},
                                       {1, 2, 16},
                                       {3, 31, 17},
                                       {6, 33, 15},
                                       {7, 65, 49},
                                       {26, 64, 80},
                                       {107, 96, 48},
                                       {2, 576, 200},
                                       {40, 1537, 33}}) {
                check_linear(isa, dtype, shape, {});
            }
        }
    }
}

TEST(Linear, ManyRowsOfManyInputsPassInBlocks) {
    for (const Isa isa : supported_isas()) check_linear(isa, DType::bf16, {130, 4099, 34}, {});
}

TEST(Linear, AddsBiasAndAccumulates) {
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            for (const std::int64_t rows : {1, 4, 13}) {
                check_linear(isa, dtype, {rows, 40, 50}, {.bias = true});
                check_linear(isa, dtype, {rows, 40, 50}, {.accumulate = true});
                check_linear(isa, dtype, {rows, 40, 50}, {.bias = true, .accumulate = true});
            }
        }
    }
}

TEST(Linear, WritesOnlyTheTilesOfTheCall) {
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            for (const std::int64_t rows : {1, 9}) {
                check_linear(isa, dtype, {rows, 48, 150}, {.first_tile = 2, .tiles = 5});
                check_linear(isa, dtype, {rows, 48, 150}, {.first_tile = 9, .tiles = 1});
                check_linear(isa, dtype, {rows, 48, 150}, {.first_tile = 3, .tiles = 0});
            }
        }
    }
}

TEST(Linear, FewRowsMultiplyInFloat) {
    // 1 + 2^-12 is not a bf16 number: only a product in float keeps it.
    const Weight weight(DType::bf16, 16, 1);
    const float x = 1.0f + 0x1p-12f;
    for (const Isa isa : supported_isas()) {
        std::vector<float> y(16);
        test::PoisonedBytes scratch(linear_scratch_bytes(1, 1));
        kernels(isa).linear(
            {&x, 1, 1, weight.packed, nullptr, y.data(), 16, false, 0, weight.packed.tiles(), scratch.data()});
        for (std::int64_t o = 0; o < 16; ++o) EXPECT_FLOAT_EQ(y[o], static_cast<float>(weight.at(o, 0)) * x);
    }
}

TEST(Pack, RowsComeBackRounded) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const std::int64_t inputs : {1, 7, 64}) {
            const Weight weight(dtype, 37, inputs);
            for (std::int64_t row = 0; row < 37; ++row) {
                std::vector<float> out(static_cast<std::size_t>(inputs));
                unpack_row(weight.packed, row, out.data());
                for (std::int64_t i = 0; i < inputs; ++i) ASSERT_EQ(static_cast<double>(out[i]), weight.at(row, i));
            }
        }
    }
}

TEST(Pack, CountsPaddingToWholeTilesAndPairs) {
    EXPECT_EQ(packed_bytes(DType::bf16, 17, 3), 2u * 2 * 64);
    EXPECT_EQ(packed_bytes(DType::f32, 17, 3), 2u * 3 * 64);
    EXPECT_EQ(packed_bytes(DType::bf16, 32, 64), 2u * 32 * 64);
}

}  // namespace
}  // namespace mha2mla::kernels
