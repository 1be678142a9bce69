#include "kernels/coded_weights.h"

#include <bit>

#include "kernels/test_support.h"

namespace mha2mla::kernels {
namespace {

/// A bf16 matrix whose words, output by output, are those of a function of their number.
template <class WordOf>
struct Words {
    Words(std::int64_t inputs_of, const WordOf& word_of, std::int64_t outputs_of = tile_rows)
        : outputs(outputs_of), inputs(inputs_of), bytes(packed_bytes(WeightFormat::bf16, outputs, inputs)) {
        std::memset(bytes.data(), 0, packed_bytes(WeightFormat::bf16, outputs, inputs));
        auto* const words = static_cast<std::uint16_t*>(bytes.data());
        for (std::int64_t output = 0; output < outputs; ++output) {
            auto* const tile = words + output / tile_rows * (inputs + 1) / 2 * 2 * tile_rows;
            for (std::int64_t i = 0; i < inputs; ++i) {
                tile[(i / 2 * tile_rows + output % tile_rows) * 2 + i % 2] = word_of(output * inputs + i);
            }
        }
    }

    PackedMatrix matrix() { return {WeightFormat::bf16, outputs, inputs, bytes.data()}; }

    std::int64_t outputs;
    std::int64_t inputs;
    test::PoisonedBytes bytes;
};

TEST(CodedWeights, EveryBf16NumberComesBack) {  // NaN, infinities, denormal numbers and both zeros, too
    Words all(4096, [](std::int64_t i) { return static_cast<std::uint16_t>(i); });
    test::PoisonedBytes bytes(0);
    const PackedMatrix coded = test::code(all.matrix(), bytes);
    std::vector<float> row(4096);
    for (std::int64_t output = 0; output < tile_rows; ++output) {
        unpack_row(coded, output, row.data());
        for (std::int64_t i = 0; i < 4096; ++i) {
            ASSERT_EQ(std::bit_cast<std::uint32_t>(row[i]) >> 16, output * 4096 + i);
        }
    }
    const CodedTileView tile = coded_tile(coded, 0);
    ASSERT_EQ(tile.head.exceptions, 65536u - 16 * 256);
    for (std::uint32_t i = 0; i < tile.head.exceptions; ++i) {
        ASSERT_EQ(coded_weight(tile, tile.exceptions[i].input, tile.exceptions[i].output), 0);
    }
}

TEST(CodedWeights, TheRarestHighBytesAreExceptions) {
    // Words of 17 high bytes, from 0x30 on, but for the last two often; and zeros, which need no code.
    Words words(100, [](std::int64_t i) {
        if (i % 7 == 0) return std::uint16_t{0};
        const std::int64_t high = i == 40 || i == 80 ? 15 : i == 1500 ? 16 : i % 15;
        return static_cast<std::uint16_t>((0x30 + high) << 8 | i % 256);
    });
    const CodedTile head = choose_codes(words.matrix(), 0);
    EXPECT_EQ(head.exceptions, 3);
    EXPECT_EQ(head.high_bytes[0], 0);
    EXPECT_THAT(head.high_bytes, testing::Not(testing::Contains(0x3f)));
    EXPECT_THAT(head.high_bytes, testing::Not(testing::Contains(0x40)));
}

TEST(CodedWeights, ExceptionsOutsideTheMatrixAreUnsound) {
    Words words(
        20, [](std::int64_t i) { return static_cast<std::uint16_t>(i << 8 | 1); }, 17);
    PackedMatrix matrix = words.matrix();
    test::PoisonedBytes bytes(0);
    const PackedMatrix coded = test::code(matrix, bytes);
    ASSERT_GT(coded.exceptions, 0);
    EXPECT_TRUE(has_sound_exceptions(coded));
    auto* const head = static_cast<CodedTile*>(bytes.data());
    auto* const exception = const_cast<WeightException*>(coded_tile(coded, 0).exceptions);
    const auto is_sound_with = [&](auto& place, auto value) {
        const auto before = std::exchange(place, value);
        const bool sound = has_sound_exceptions(coded);
        place = before;
        return sound;
    };
    EXPECT_FALSE(is_sound_with(exception->input, 20u));
    EXPECT_TRUE(is_sound_with(exception->input, 19u));
    EXPECT_FALSE(is_sound_with(exception->output, std::uint16_t{16}));
    auto* const of_last_output = const_cast<WeightException*>(coded_tile(coded, 1).exceptions);
    ASSERT_GT(coded_tile(coded, 1).head.exceptions, 0);
    EXPECT_EQ(of_last_output->output, 0);
    EXPECT_FALSE(is_sound_with(of_last_output->output, std::uint16_t{1}));
    EXPECT_FALSE(is_sound_with(head->first_exception, 1u));
    EXPECT_FALSE(is_sound_with(head->exceptions, head->exceptions + 1));
    EXPECT_FALSE(is_sound_with(head->exceptions, head->exceptions - 1));
    EXPECT_FALSE(is_sound_with(head->exceptions, 0xffffffffu));
    EXPECT_TRUE(has_sound_exceptions(coded));
}

}  // namespace
}  // namespace mha2mla::kernels
