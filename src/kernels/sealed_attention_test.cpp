#include "kernels/sealed_attention_cases.h"

namespace mha2mla::kernels::sealed {
namespace {

TEST(SealedAttention, EqualsDoubleSumsOverLatents) {
    for_each_format([](Isa isa, const Coding& first, const Coding& second) {
        for (const Shape& shape : {Shape{9, 1, 96, 24, 0, 300},
                                   {9, 1, 118, 2, 0, 128},
                                   {9, 1, 72, 0, 0, 70},
                                   {3, 2, 40, 32, 0, 191},
                                   {1, 1, 1, 1, 0, 64},
                                   {2, 3, 33, 7, 0, 129},
                                   {16, 1, 9, 5, 0, 77},
                                   {5, 1, 131, 64, 0, 65}}) {
            check({isa, first, second, shape});
            check({.isa = isa, .first = first, .second = second, .shape = shape, .slack = 0});
        }
    });
}

TEST(SealedAttention, EqualsDoubleSumsOverKeysAndValues) {
    for_each_format([](Isa isa, const Coding& first, const Coding& second) {
        for (const Shape& shape : {Shape{3, 1, 64, 0, 64, 300},
                                   {1, 4, 16, 0, 24, 128},
                                   {7, 1, 17, 0, 9, 66},
                                   {2, 2, 32, 0, 80, 150},
                                   {1, 1, 16, 0, 128, 100}}) {
            check({isa, first, second, shape});
        }
    });
}

// More than a block of 32: a prompt's.
TEST(SealedAttention, ManyRows) {
    for_each_format([](Isa isa, const Coding& first, const Coding& second) {
        for (const Shape& shape : {Shape{3, 64, 64, 0, 64, 300},
                                   {1, 45, 17, 0, 9, 130},
                                   {2, 20, 32, 0, 80, 150},
                                   {9, 8, 96, 24, 0, 200},
                                   {7, 5, 33, 7, 0, 129},
                                   {5, 9, 131, 64, 0, 77}}) {
            check({isa, first, second, shape});
            check({isa, first, second, shape, 3, {}, true});
        }
    });
}

TEST(SealedAttention, AnyNumberOfHeadsAndQueryTokens) {
    for (const Isa isa : supported_isas()) {
        for (std::int64_t heads = 1; heads <= 40; ++heads) {
            check({isa, int4, int8, {heads, 1, 40, 6, 0, 140}});
            check({isa, int4_channels, int8_channels, {heads, 1, 40, 6, 0, 140}});
        }
        for (std::int64_t tokens = 1; tokens <= 8; ++tokens) {
            check({isa, int4, int8, {9, tokens, 40, 6, 0, 140}});
            check({isa, int8, int8, {3, tokens, 16, 0, 16, 128}});
            check({isa, int4_channels, int4_channels, {9, tokens, 40, 6, 0, 140}});
        }
        check({isa, int4_channels, int8_channels, {9, 3, 40, 6, 0, 192}, 2, {}, true});
    }
}

TEST(SealedAttention, RowsThatSeeNothingOfAPageOrNothingAtAll) {
    for_each_format([](Isa isa, const Coding& first, const Coding& second) {
        check({isa, first, second, {1, 70, 40, 6, 0, 140}});
        check({isa, first, second, {3, 5, 40, 6, 0, 192, 40}});
        check({isa, first, second, {3, 5, 40, 6, 0, 192, 40}, 40, {}, true});
        check({isa, first, second, {6, 5, 40, 6, 0, 192, 40}, 40, {}, true});
    });
}

TEST(SealedAttention, GoesOnWithWhatAnEarlierCallLeft) {
    for_each_format([](Isa isa, const Coding& first, const Coding& second) {
        for (const std::int64_t second_call : {64, 100, 192}) {
            for (const bool has_bias : {false, true}) {
                for (const Shape& shape : {Shape{9, 1, 40, 6, 0, 300},
                                           {1, 4, 16, 0, 24, 300},
                                           {3, 5, 33, 7, 0, 300, 40},
                                           {9, 5, 40, 6, 0, 300}}) {
                    check({.isa = isa,
                           .first = first,
                           .second = second,
                           .shape = shape,
                           .first_key = 2,
                           .has_bias = has_bias,
                           .second_call = second_call});
                }
            }
        }
    });
}

TEST(SealedAttention, NanStaysInItsRow) {
    for_each_format([](Isa isa, const Coding& first, const Coding& second) {
        for (const Shape& shape : {Shape{9, 1, 40, 6, 0, 192}, Shape{9, 2, 40, 6, 0, 150}}) {
            for (const std::int64_t second_call : {0, 100}) {
                const Case test_case{
                    .isa = isa, .first = first, .second = second, .shape = shape, .second_call = second_call};
                SCOPED_TRACE(label(test_case));
                std::vector<float> q = test::random_floats(shape.rows() * shape.key_width(), 3, 2);
                q[4 * shape.key_width() + 7] = test::poison;
                const std::vector<float> out = attend(test_case, Cache(test_case), q).out;
                for (std::int64_t i = 0; i < static_cast<std::int64_t>(out.size()); ++i) {
                    ASSERT_EQ(std::isnan(out[i]), i / shape.values() == 4) << i;
                }
            }
        }
    });
}

TEST(SealedAttention, OneNanAmongScoresStaysVisible) {
    for (const Isa isa : supported_isas()) {
        for (const auto& [heads, second_call] : {std::pair{9, 0}, {21, 0}, {9, 64}, {21, 64}, {9, 128}, {21, 128}}) {
            const Case test_case{.isa = isa,
                                 .first = int4_channels,
                                 .second = int8_channels,
                                 .shape = {heads, 1, 40, 6, 0, 192},
                                 .has_bias = true,
                                 .nan_key = 70,
                                 .second_call = second_call};
            const Shape& shape = test_case.shape;
            const auto q = test::random_floats(shape.rows() * shape.key_width(), 3, 2);
            const std::vector<float> out = attend(test_case, Cache(test_case), q).out;
            for (std::int64_t i = 0; i < static_cast<std::int64_t>(out.size()); ++i) {
                ASSERT_EQ(std::isnan(out[i]), i / shape.values() == 4) << label(test_case) << " " << i;
            }
        }
    }
}

TEST(SealedAttention, AnyNumberOfKeysAndAnyFirst) {
    for (const Isa isa : supported_isas()) {
        for (std::int64_t keys = 64; keys <= 130; ++keys) {
            check({isa, int4, int8, {3, 1, 17, 3, 0, keys}});
            check({isa, int4, int8, {3, 1, 17, 3, 0, keys}, keys - 62});
            check({isa, int4_channels, int8_channels, {3, 1, 17, 3, 0, keys}});
            check({isa, int4_channels, int8_channels, {3, 1, 17, 3, 0, keys}, keys - 62});
            check({isa, int4_channels, int8_channels, {3, 2, 17, 3, 0, keys}, 2, {}, true});
            check({isa, int4_channels, int8_channels, {13, 1, 17, 3, 0, keys}, keys - 62});
            check({isa, int4, int8, {3, 2, 17, 3, 0, keys}, 2, {}, true});
        }
    }
}

TEST(LoadRows, EqualsTheDefinitionAndReadsNoOtherRow) {
    for_each_format([](Isa isa, const Coding& first, const Coding& second) {
        for (const auto& [a, b] : {std::pair{96, 24}, {118, 2}, {7, 0}, {1, 1}, {33, 31}, {64, 9}}) {
            const CodedRows parts[] = {coded_rows(first, a, {0, 2}),
                                       coded_rows(second, b, {end_of(coded_rows(first, a, {0, 2})), 2})};
            test::PoisonedBytes memory(static_cast<std::size_t>(end_of(parts[1])));
            auto* const block = static_cast<char*>(memory.data());
            for (const CodedRows& part : parts) fill(part, block, {5, 42}, 9);
            const std::int64_t stride = a + b + group_unit - 1;
            std::vector<float> y(37 * stride, test::poison);
            kernels(isa).load_rows({block, {parts[0], parts[1]}, 5, 37, y.data(), stride});
            for (std::int64_t row = 0; row < 37; ++row) {
                for (std::int64_t i = 0; i < a + b; ++i) {
                    const double expected =
                        i < a ? element(parts[0], block, 5 + row, i) : element(parts[1], block, 5 + row, i - a);
                    ASSERT_EQ(y[row * stride + i], static_cast<float>(expected))
                        << name_of(isa) << " " << row << " " << i;
                }
            }
        }
    });
}

}  // namespace
}  // namespace mha2mla::kernels::sealed
