#include "kernels/test_support.h"

namespace mha2mla::kernels {
namespace {

using core::DType;

constexpr WeightFormat formats[] = {WeightFormat::f32, WeightFormat::bf16, WeightFormat::coded_bf16, WeightFormat::int8,
                                    WeightFormat::int4};

struct Shape {
    std::int64_t rows;
    std::int64_t inputs;
    std::int64_t outputs;
};

std::vector<float> random_weights(WeightFormat format, std::int64_t count) {
    std::vector<float> weights = test::random_floats(count, 1);
    // Some without a code: they count in a sum, and are rare enough not to be all of it.
    if (format == WeightFormat::coded_bf16) {
        for (std::int64_t i = 5; i < count; i += 53) weights[i] = std::ldexp(weights[i], static_cast<int>(i % 4) * 2);
    }
    return weights;
}

// A random matrix, packed.
struct Weight {
    Weight(WeightFormat format, std::int64_t outputs, std::int64_t inputs)
        : source(random_weights(format, outputs * inputs)), bytes(packed_bytes(packing_of(format), outputs, inputs)) {
        const WeightFormat packing = packing_of(format);
        std::memset(bytes.data(), 0, packed_bytes(packing, outputs, inputs));
        // In two pieces, the second of which begins inside a tile.
        const std::int64_t half = outputs / 2;
        pack_rows({source.data(), 0, half, packing, inputs, bytes.data()});
        pack_rows({source.data() + half * inputs, half, outputs - half, packing, inputs, bytes.data()});
        packed = {packing, outputs, inputs, bytes.data()};
        if (format == WeightFormat::coded_bf16) packed = test::code(packed, coded_bytes);
        for (std::int64_t row = 0; row < outputs; ++row) {
            values.emplace_back(static_cast<std::size_t>(inputs));
            unpack_row(packed, row, values.back().data());
        }
    }

    double at(std::int64_t output, std::int64_t input) const {
        return static_cast<double>(values[static_cast<std::size_t>(output)][static_cast<std::size_t>(input)]);
    }
    double source_at(std::int64_t output, std::int64_t input) const {
        return static_cast<double>(source[static_cast<std::size_t>(output * packed.inputs + input)]);
    }

    static WeightFormat packing_of(WeightFormat format) {
        return format == WeightFormat::coded_bf16 ? WeightFormat::bf16 : format;
    }

    std::vector<float> source;
    test::PoisonedBytes bytes;
    test::PoisonedBytes coded_bytes{0};
    PackedMatrix packed;
    std::vector<std::vector<float>> values;  // as unpacked
};

// What a row becomes where weights are int8 or int4: whole steps of each group's largest magnitude / 127.
std::vector<double> rounded_inputs(const float* x, std::int64_t inputs) {
    std::vector<double> rounded;
    for (std::int64_t first = 0; first < inputs; first += group_inputs) {
        const std::int64_t count = std::min(group_inputs, inputs - first);
        float largest = 0;
        for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[first + i]));
        for (std::int64_t i = 0; i < count; ++i) {
            const double code = largest == 0 ? 0 : std::nearbyint(x[first + i] * (127 / largest));
            rounded.push_back(code * static_cast<double>(largest) / 127);
        }
    }
    return rounded;
}

std::vector<double> multiplied_inputs(const float* x, const PackedMatrix& weight) {
    if (is_grouped(weight.format)) return rounded_inputs(x, weight.inputs);
    return {x, x + weight.inputs};
}

// Rounding error of one operand of a product: x may be rounded to bf16 where weights are. That is at most 2^-8, and on
// average of many products far less; among coded weights, one product may be most of a sum, but few rows are not
// rounded.
double epsilon(WeightFormat format, std::int64_t rows) {
    if (format == WeightFormat::coded_bf16) return rows > 5 ? 0x1p-8 : 0x1p-24;
    return format == WeightFormat::bf16 ? 0x1p-9 : 0x1p-24;
}

std::string label(Isa isa, WeightFormat format, std::initializer_list<std::int64_t> sizes) {
    std::string text = std::string(name_of(isa)) + " " + std::string(name_of(format));
    for (const std::int64_t size : sizes) text.append(" ").append(std::to_string(size));
    return text;
}

struct Options {
    bool bias = false;
    bool accumulate = false;
    std::int64_t first_tile = 0;
    std::int64_t tiles = -1;  // all
};

// Runs a kernel on strided, poisoned memory and compares every element with sums in double.
void check_linear(Isa isa, WeightFormat format, const Shape& shape, const Options& options) {
    SCOPED_TRACE(label(isa, format, {shape.rows, shape.inputs, shape.outputs, options.first_tile, options.tiles}));
    const Weight weight(format, shape.outputs, shape.inputs);
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
        const std::vector<double> inputs = multiplied_inputs(&x[r * x_stride], weight.packed);
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
                const double product = inputs[static_cast<std::size_t>(i)] * weight.at(o, i);
                expected += product;
                magnitude += std::abs(product);
            }
            // Rounded inputs, and the rounding of sums in float (those of int4 cancel).
            const double tolerance =
                magnitude * (epsilon(format, shape.rows) + (format == WeightFormat::int4 ? 64 : 8) * 0x1p-24);
            ASSERT_NEAR(y[at], expected, tolerance) << "row " << r << " output " << o;
        }
    }
}

TEST(Linear, EqualsDoubleSumsForAnyShape) {
    for (const Isa isa : supported_isas()) {
        for (const WeightFormat format : formats) {
            for (std::int64_t rows = 1; rows <= 14; ++rows) check_linear(isa, format, {rows, 70, 100}, {});
            for (const Shape& shape : {Shape{1, 1, 1},
                                       {1, 2, 16},
                                       {3, 31, 17},
                                       {6, 33, 15},
                                       {7, 65, 49},
                                       {26, 64, 80},
                                       {107, 96, 48},
                                       {2, 576, 200},
                                       {40, 1537, 33}}) {
                check_linear(isa, format, shape, {});
            }
        }
    }
}

TEST(Linear, ManyRowsOfManyInputsPassInBlocks) {
    for (const Isa isa : supported_isas()) {
        for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::coded_bf16, WeightFormat::int8}) {
            check_linear(isa, format, {130, 4099, 34}, {});
        }
    }
}

TEST(Linear, AddsBiasAndAccumulates) {
    for (const Isa isa : supported_isas()) {
        for (const WeightFormat format : formats) {
            for (const std::int64_t rows : {1, 4, 7, 13}) {
                check_linear(isa, format, {rows, 40, 50}, {.bias = true});
                check_linear(isa, format, {rows, 40, 50}, {.accumulate = true});
                check_linear(isa, format, {rows, 40, 50}, {.bias = true, .accumulate = true});
            }
        }
    }
}

TEST(Linear, WritesOnlyTheTilesOfTheCall) {
    for (const Isa isa : supported_isas()) {
        for (const WeightFormat format : formats) {
            for (const std::int64_t rows : {1, 7, 9, 13}) {
                check_linear(isa, format, {rows, 48, 150}, {.first_tile = 2, .tiles = 5});
                check_linear(isa, format, {rows, 48, 150}, {.first_tile = 9, .tiles = 1});
                check_linear(isa, format, {rows, 48, 150}, {.first_tile = 3, .tiles = 0});
            }
        }
    }
}

TEST(Linear, FewRowsMultiplyInFloat) {
    // 1 + 2^-12 is not a bf16 number: only a product in float keeps it.
    const float x = 1.0f + 0x1p-12f;
    for (const Isa isa : supported_isas()) {
        for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::coded_bf16}) {
            const Weight weight(format, 16, 1);
            std::vector<float> y(16);
            test::PoisonedBytes scratch(linear_scratch_bytes(1, 1));
            kernels(isa).linear(
                {&x, 1, 1, weight.packed, nullptr, y.data(), 16, false, 0, weight.packed.tiles(), scratch.data()});
            for (std::int64_t o = 0; o < 16; ++o) EXPECT_FLOAT_EQ(y[o], static_cast<float>(weight.at(o, 0)) * x);
        }
    }
}

// A row of 1 or -1 times itself, in each format's largest codes.
TEST(Linear, LargestProductsDoNotOverflow) {
    constexpr std::int64_t inputs = 96;
    for (const Isa isa : supported_isas()) {
        for (const WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
            for (const int period : {1, 2, 3, 4}) {
                std::vector<float> row;
                for (std::int64_t i = 0; i < inputs; ++i) row.push_back(i / period % 2 == 0 ? 1.0f : -1.0f);
                test::PoisonedBytes bytes(packed_bytes(format, 1, inputs));
                std::memset(bytes.data(), 0, packed_bytes(format, 1, inputs));
                pack_rows({row.data(), 0, 1, format, inputs, bytes.data()});
                test::PoisonedBytes scratch(linear_scratch_bytes(1, inputs));
                float y = 0;
                LinearParams params;
                params.x = row.data();
                params.x_stride = inputs;
                params.rows = 1;
                params.weight = {format, 1, inputs, bytes.data()};
                params.y = &y;
                params.y_stride = 1;
                params.tiles = 1;
                params.scratch = scratch.data();
                kernels(isa).linear(params);
                EXPECT_NEAR(y, inputs, 0.1) << label(isa, format, {period});
            }
        }
    }
}

TEST(Linear, RowsOfGroupsDoNotDependOnEachOther) {
    constexpr std::int64_t rows = 37;
    constexpr std::int64_t inputs = 75;
    constexpr std::int64_t outputs = 33;
    const std::vector<float> x = test::random_floats(rows * inputs, 2);
    test::PoisonedBytes scratch(linear_scratch_bytes(rows, inputs));
    for (const Isa isa : supported_isas()) {
        for (const WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
            const Weight weight(format, outputs, inputs);
            std::vector<float> together(rows * outputs);
            std::vector<float> alone(rows * outputs);
            LinearParams params{x.data(), inputs, rows, weight.packed,         nullptr,       together.data(),
                                outputs,  false,  0,    weight.packed.tiles(), scratch.data()};
            kernels(isa).linear(params);
            params.rows = 1;
            for (std::int64_t r = 0; r < rows; ++r) {
                params.x = &x[r * inputs];
                params.y = &alone[r * outputs];
                kernels(isa).linear(params);
            }
            EXPECT_EQ(together, alone) << label(isa, format, {});
        }
    }
}

TEST(Linear, GroupsOfZerosGiveZero) {
    for (const Isa isa : supported_isas()) {
        for (const WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
            const Weight weight(format, 16, 64);
            const std::vector<float> x(64);
            std::vector<float> y(16, test::poison);
            test::PoisonedBytes scratch(linear_scratch_bytes(1, 64));
            kernels(isa).linear({x.data(), 64, 1, weight.packed, nullptr, y.data(), 16, false, 0, 1, scratch.data()});
            EXPECT_THAT(y, testing::Each(0.0f)) << label(isa, format, {});
        }
    }
}

TEST(Pack, RowsComeBackRounded) {
    for (const std::int64_t inputs : {1, 7, 64}) {
        for (const auto& [format, dtype] :
             {std::pair{WeightFormat::f32, DType::f32}, std::pair{WeightFormat::bf16, DType::bf16},
              std::pair{WeightFormat::coded_bf16, DType::bf16}}) {
            const Weight weight(format, 37, inputs);
            for (std::int64_t row = 0; row < 37; ++row) {
                for (std::int64_t i = 0; i < inputs; ++i) {
                    ASSERT_EQ(weight.at(row, i), test::stored(static_cast<float>(weight.source_at(row, i)), dtype));
                }
            }
        }
    }
}

// Half a step is the rounding of a code; a little more, that of the scale and the minimum.
TEST(Pack, GroupsComeBackWithinHalfAStep) {
    for (const auto& [format, codes] : {std::pair{WeightFormat::int8, 127}, std::pair{WeightFormat::int4, 15}}) {
        for (const std::int64_t inputs : {1, 31, 64, 75}) {
            const Weight weight(format, 37, inputs);
            for (std::int64_t row = 0; row < 37; ++row) {
                for (std::int64_t i = 0; i < inputs; ++i) {
                    const float* group = &weight.source[row * inputs + i / group_inputs * group_inputs];
                    const std::int64_t count = std::min(group_inputs, inputs - i / group_inputs * group_inputs);
                    const auto [low, high] = std::minmax_element(group, group + count);
                    const float range = format == WeightFormat::int8 ? std::max(-*low, *high) : *high - *low;
                    ASSERT_NEAR(weight.at(row, i), weight.source_at(row, i), 0.57 * range / codes + 0x1p-11)
                        << name_of(format) << " row " << row << " input " << i;
                }
            }
        }
    }
}

TEST(Pack, WholeStepsComeBackExactly) {  // a block of GGUF's Q8_0
    constexpr std::int64_t inputs = 64;
    core::Random random(5);
    std::vector<float> row;
    for (std::int64_t i = 0; i < inputs; ++i) {
        const int code = i % group_inputs == 7 ? -127 : static_cast<int>(random.below(255)) - 127;
        row.push_back(core::to_float(core::to_f16(i < group_inputs ? 0.0173f : 3e-6f)) * static_cast<float>(code));
    }
    test::PoisonedBytes bytes(packed_bytes(WeightFormat::int8, 1, inputs));
    pack_rows({row.data(), 0, 1, WeightFormat::int8, inputs, bytes.data()});
    std::vector<float> out(row.size());
    unpack_row({WeightFormat::int8, 1, inputs, bytes.data()}, 0, out.data());
    EXPECT_EQ(out, row);
}

TEST(Pack, CodesAreKept) {  // blocks of GGUF's Q4_1, which need not use their first or last code
    constexpr std::int64_t rows = 19;
    constexpr std::int64_t inputs = 96;
    core::Random random(6);
    std::vector<core::CodeGroup> groups(rows * inputs / group_inputs);
    std::vector<float> expected;
    for (core::CodeGroup& group : groups) {
        group.scale = core::to_f16(static_cast<float>(random.uniform() - 0.5));
        group.minimum = core::to_f16(static_cast<float>(random.uniform() - 0.5));
        for (std::uint8_t& byte : group.codes)
            byte = static_cast<std::uint8_t>(0x33 + 16 * random.below(10) + random.below(10));
        for (const int shift : {0, 4}) {
            for (const std::uint8_t byte : group.codes) {
                const auto code = static_cast<float>(byte >> shift & 15);
                expected.push_back(core::to_float(group.scale) * code + core::to_float(group.minimum));
            }
        }
    }
    const std::size_t size = packed_bytes(WeightFormat::int4, rows, inputs);
    test::PoisonedBytes bytes(size);
    std::memset(bytes.data(), 0, size);
    pack_codes({groups.data(), 0, 5, inputs, bytes.data()});
    pack_codes({groups.data() + 5 * 3, 5, rows - 5, inputs, bytes.data()});
    std::vector<float> out(expected.size());
    for (std::int64_t row = 0; row < rows; ++row) {
        unpack_row({WeightFormat::int4, rows, inputs, bytes.data()}, row, &out[row * inputs]);
    }
    EXPECT_EQ(out, expected);
}

TEST(Pack, CountsPaddingToWholeTilesPairsAndGroups) {
    EXPECT_EQ(packed_bytes(WeightFormat::bf16, 17, 3), 2u * 2 * 64);
    EXPECT_EQ(packed_bytes(WeightFormat::f32, 17, 3), 2u * 3 * 64);
    EXPECT_EQ(packed_bytes(WeightFormat::bf16, 32, 64), 2u * 32 * 64);
    EXPECT_EQ(packed_bytes(WeightFormat::coded_bf16, 17, 9, 3), 2u * (64 + 2 * 192) + 3 * 8);
    EXPECT_EQ(packed_bytes(WeightFormat::int8, 17, 33), 2u * 2 * 16 * 34);
    EXPECT_EQ(packed_bytes(WeightFormat::int4, 17, 33), 2u * 2 * 16 * 20);
}

}  // namespace
}  // namespace mha2mla::kernels
