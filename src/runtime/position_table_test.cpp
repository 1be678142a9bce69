#include "runtime/position_table.h"

#include <cmath>
#include <gtest/gtest.h>
#include <ostream>
#include <vector>

namespace mha2mla::runtime {
namespace {

constexpr auto f32 = core::DType::f32;
constexpr auto bf16 = core::DType::bf16;

struct Case {
    int head_dim;
    double theta;
    std::int64_t positions;
    core::DType dtype;
    std::int64_t most_rank;  // or one less

    friend std::ostream& operator<<(std::ostream& stream, const Case& c) {
        return stream << "d_" << c.head_dim << "_theta_" << std::llround(c.theta) << "_" << c.positions << "_positions_"
                      << (c.dtype == core::DType::f32 ? "f32" : "bf16");
    }
};

class PositionTables : public testing::TestWithParam<Case> {
protected:
    PositionTables() : pool_(1), table_(RopeTable(config(), GetParam().positions, pool_), GetParam().dtype) {}

    static checkpoint::ModelConfig config() {
        checkpoint::ModelConfig config;
        config.head_dim = GetParam().head_dim;
        config.rope_theta = GetParam().theta;
        return config;
    }

    /// Products of every unit vector with a block of positions: [d, positions]. Of many rows at once projected ones may
    /// be rounded to bf16.
    std::vector<float> columns_of(std::int64_t block, std::int64_t rows_at_once) {
        const std::int64_t d = table_.width();
        std::vector<float> unit(static_cast<std::size_t>(d * d)), turned(unit.size());
        for (std::int64_t i = 0; i < d; ++i) unit[static_cast<std::size_t>(i * d + i)] = 1;
        kernels::kernels().turn(table_.turn_to(block, unit.data(), d, turned.data()));
        return multiply(multiply(turned, table_.projection(), 1), table_.basis(), rows_at_once);
    }

private:
    static std::vector<float> multiply(const std::vector<float>& x, const kernels::PackedMatrix& weight,
                                       std::int64_t rows_at_once) {
        const std::int64_t rows = static_cast<std::int64_t>(x.size()) / weight.inputs;
        std::vector<float> y(static_cast<std::size_t>(rows * weight.outputs));
        const cache::Arena scratch(kernels::linear_scratch_bytes(rows_at_once, weight.inputs));
        for (std::int64_t row = 0; row < rows; row += rows_at_once) {
            kernels::kernels().linear({.x = x.data() + row * weight.inputs,
                                       .x_stride = weight.inputs,
                                       .rows = rows_at_once,
                                       .weight = weight,
                                       .y = y.data() + row * weight.outputs,
                                       .y_stride = weight.outputs,
                                       .tiles = weight.tiles(),
                                       .scratch = scratch.data()});
        }
        return y;
    }

    core::ThreadPool pool_;

protected:
    PositionTable table_;

    void expect_cosines_and_sines(std::int64_t rows_at_once, double tolerance);
};

void PositionTables::expect_cosines_and_sines(std::int64_t rows_at_once, double tolerance) {
    const auto frequencies = checkpoint::rope_frequencies(config());
    const std::size_t pairs = frequencies.size();
    const auto block_positions = static_cast<std::size_t>(table_.basis().outputs);
    for (std::int64_t first = 0; first < GetParam().positions; first += position_block_tokens) {
        const auto columns = columns_of(first / position_block_tokens, rows_at_once);
        for (std::size_t i = 0; i < columns.size(); ++i) {
            const std::size_t column = i / block_positions;
            const auto position = first + static_cast<std::int64_t>(i % block_positions);
            const double angle = static_cast<double>(position) * frequencies[column % pairs];
            const double expected = column < pairs ? std::cos(angle) : std::sin(angle);
            ASSERT_NEAR(columns[i], expected, tolerance) << "position " << position << " column " << column;
        }
    }
}

TEST_P(PositionTables, GiveTheCosineAndSineOfEveryPosition) {
    // A bf16 number of the basis is off by up to 2^-9 of its size.
    expect_cosines_and_sines(1, GetParam().dtype == f32 ? 2e-6 : 6e-3);
}

TEST_P(PositionTables, GiveThemToManyRowsAtOnce) {
    // Both factors are off then.
    expect_cosines_and_sines(GetParam().head_dim, GetParam().dtype == f32 ? 2e-6 : 2 * 6e-3);
}

TEST_P(PositionTables, HaveALowRank) {
    EXPECT_GE(table_.rank(), GetParam().most_rank - 1);
    EXPECT_LE(table_.rank(), GetParam().most_rank);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PositionTables,
                         testing::Values(Case{64, 1e5, 1024, bf16, 25}, Case{64, 1e5, 832, f32, 29},
                                         Case{64, 1e4, 832, bf16, 30}, Case{128, 5e5, 576, bf16, 36},
                                         Case{128, 1e4, 576, f32, 48}, Case{32, 1e6, 1024, bf16, 16},
                                         Case{64, 1e5, 128, bf16, 22}, Case{16, 1e4, 64, f32, 12},
                                         Case{8, 100, 1088, bf16, 8}),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace mha2mla::runtime
