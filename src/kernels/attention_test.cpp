#include <algorithm>

#include "kernels/test_support.h"

namespace mha2mla::kernels {
namespace {

using core::DType;
using test::label;

struct Shape {
    std::int64_t rows;
    std::int64_t key_width;
    std::int64_t value_width;
    std::int64_t tokens;
    std::int64_t block_tokens = 64;
    bool latent = false;  // the value is the first part of the key
};

// Cached keys and values in blocks. All memory that no row may read is NaN: what follows a row, what follows the last
// token, and blocks that no row sees.
class Cache {
public:
    Cache(DType dtype, const Shape& shape)
        : dtype_(dtype),
          shape_(shape),
          key_stride_((shape.key_width + 5) * element()),
          value_stride_(shape.latent ? key_stride_ : (shape.value_width + 3) * element()),
          keys_(test::random_floats(shape.tokens * shape.key_width, 11, 2)),
          values_(test::random_floats(shape.tokens * shape.value_width, 12, 2)) {
        const std::int64_t blocks = (shape.tokens + shape.block_tokens - 1) / shape.block_tokens;
        for (std::int64_t b = 0; b < blocks; ++b) {
            memory_.emplace_back(static_cast<std::size_t>(shape.block_tokens * key_stride_));
            memory_.emplace_back(static_cast<std::size_t>(shape.block_tokens * value_stride_));
        }
        for (std::int64_t b = 0; b < blocks; ++b) {
            void* keys = memory_[2 * b].data();
            void* values = shape.latent ? keys : memory_[2 * b + 1].data();
            blocks_.push_back({keys, values, std::min(shape.block_tokens, shape.tokens - b * shape.block_tokens)});
        }
    }

    // Fills tokens [first, end); the others stay poison.
    void fill(std::int64_t first, std::int64_t end) {
        for (std::int64_t t = first; t < end; ++t) {
            for (std::int64_t i = 0; i < shape_.key_width; ++i) test::store(key_source(t, i), dtype_, key_at(t, i));
            for (std::int64_t i = 0; i < shape_.value_width && !shape_.latent; ++i) {
                test::store(values_[t * shape_.value_width + i], dtype_, value_at(t, i));
            }
        }
    }

    double key(std::int64_t t, std::int64_t i) const { return test::stored(key_source(t, i), dtype_); }
    double value(std::int64_t t, std::int64_t i) const {
        return shape_.latent ? key(t, i) : test::stored(values_[t * shape_.value_width + i], dtype_);
    }
    std::int64_t element() const { return static_cast<std::int64_t>(core::size_of(dtype_)); }
    std::int64_t key_stride() const { return key_stride_; }
    std::int64_t value_stride() const { return value_stride_; }
    const KeyValueBlock* blocks() const { return blocks_.data(); }

private:
    float key_source(std::int64_t t, std::int64_t i) const { return keys_[t * shape_.key_width + i]; }
    char* key_at(std::int64_t t, std::int64_t i) {
        char* block = static_cast<char*>(memory_[2 * (t / shape_.block_tokens)].data());
        return block + t % shape_.block_tokens * key_stride_ + i * element();
    }
    char* value_at(std::int64_t t, std::int64_t i) {
        char* block = static_cast<char*>(memory_[2 * (t / shape_.block_tokens) + 1].data());
        return block + t % shape_.block_tokens * value_stride_ + i * element();
    }

    DType dtype_;
    Shape shape_;
    std::int64_t key_stride_;
    std::int64_t value_stride_;
    std::vector<float> keys_;
    std::vector<float> values_;
    std::vector<test::PoisonedBytes> memory_;
    std::vector<KeyValueBlock> blocks_;
};

struct Case {
    Isa isa;
    DType dtype;
    Shape shape;
    std::vector<std::int64_t> visible;
    std::vector<std::int64_t> cuts;  // ends of the key ranges that separate calls take
    bool has_bias = false;
    std::int64_t first_key = 0;  // of the first range
    bool continues = false;      // each call goes on with what the one before left

    // The end of the keys that a row takes.
    std::int64_t end_key(std::int64_t row) const { return std::min(visible[row], cuts.back()); }
};

// Logits that the caller adds, [rows, tokens]; poison where the row takes no key. Empty for a case without.
std::vector<float> bias_of(const Case& test_case) {
    if (!test_case.has_bias) return {};
    const std::int64_t tokens = test_case.shape.tokens;
    std::vector<float> bias = test::random_floats(test_case.shape.rows * tokens, 14, 3);
    for (std::int64_t row = 0; row < test_case.shape.rows; ++row) {
        float* of_row = &bias[row * tokens];
        std::fill_n(of_row, test_case.first_key, test::poison);
        std::fill(of_row + test_case.end_key(row), of_row + tokens, test::poison);
    }
    return bias;
}

// The kernel's result: all ranges, merged.
std::vector<float> attend(const Case& test_case, const Cache& cache, const std::vector<float>& q) {
    const Shape& shape = test_case.shape;
    const std::vector<float> bias = bias_of(test_case);
    const auto calls = static_cast<std::int64_t>(test_case.cuts.size());
    const std::int64_t parts = test_case.continues ? 1 : calls;
    std::vector<float> partial(parts * shape.rows * shape.value_width, test::poison);
    std::vector<float> max(parts * shape.rows, test::poison);
    std::vector<float> sum(parts * shape.rows, test::poison);
    for (std::int64_t call = 0; call < calls; ++call) {
        const std::int64_t part = test_case.continues ? 0 : call;
        test::PoisonedBytes scratch(attention_scratch_bytes(shape.rows, shape.key_width, shape.value_width));
        AttentionParams params;
        params.dtype = test_case.dtype;
        params.q = q.data();
        params.q_stride = shape.key_width + 1;
        params.rows = shape.rows;
        params.key_width = shape.key_width;
        params.value_width = shape.value_width;
        params.key_stride_bytes = cache.key_stride();
        params.value_stride_bytes = cache.value_stride();
        params.scale = 1.0f / std::sqrt(static_cast<float>(shape.key_width));
        params.logit_bias = test_case.has_bias ? bias.data() : nullptr;
        params.logit_bias_block_tokens = shape.block_tokens;
        params.logit_bias_block_stride = shape.block_tokens;
        params.logit_bias_stride = shape.tokens;
        params.blocks = cache.blocks();
        params.block_tokens = shape.block_tokens;
        params.first_key = call == 0 ? test_case.first_key : test_case.cuts[call - 1];
        params.end_key = test_case.cuts[call];
        params.continues = test_case.continues && call > 0;
        params.visible = test_case.visible.data();
        params.out = partial.data() + part * shape.rows * shape.value_width;
        params.out_stride = shape.value_width;
        params.max = max.data() + part * shape.rows;
        params.sum = sum.data() + part * shape.rows;
        params.scratch = scratch.data();
        kernels(test_case.isa).attention(params);
    }
    std::vector<float> out(shape.rows * shape.value_width, test::poison);
    kernels(test_case.isa)
        .merge({partial.data(), max.data(), sum.data(), parts, shape.rows, shape.value_width, out.data(),
                shape.value_width});
    return out;
}

// Probabilities of the keys of one row in double, and how far rounding the query may move its scores.
std::vector<double> probabilities(const Case& test_case, const Cache& cache, const std::vector<float>& queries,
                                  std::int64_t row, double& score_error) {
    const float* q = &queries[row * (test_case.shape.key_width + 1)];
    const std::vector<float> bias = bias_of(test_case);
    std::vector<double> p(static_cast<std::size_t>(test_case.end_key(row)));
    double max = -INFINITY;
    for (std::int64_t t = test_case.first_key; t < test_case.end_key(row); ++t) {
        double score = 0;
        double magnitude = 0;
        for (std::int64_t i = 0; i < test_case.shape.key_width; ++i) {
            score += static_cast<double>(q[i]) * cache.key(t, i);
            magnitude += std::abs(static_cast<double>(q[i]) * cache.key(t, i));
        }
        const double scale = 1 / std::sqrt(static_cast<double>(test_case.shape.key_width));
        score_error = std::max(score_error, magnitude * scale * (test::epsilon(test_case.dtype) + 16 * 0x1p-24));
        p[t] = score * scale + (bias.empty() ? 0 : bias[row * test_case.shape.tokens + t]);
        max = std::max(max, p[t]);
    }
    std::fill_n(p.begin(), test_case.first_key, -INFINITY);
    double sum = 0;
    for (double& value : p) sum += value = std::exp(value - max);
    for (double& value : p) value /= sum;
    return p;
}

void check_attention(const Case& test_case) {
    const Shape& shape = test_case.shape;
    SCOPED_TRACE(label(test_case.isa, test_case.dtype,
                       {shape.rows, shape.key_width, shape.value_width, shape.tokens, shape.block_tokens}));
    Cache cache(test_case.dtype, shape);
    cache.fill(test_case.first_key, *std::max_element(test_case.visible.begin(), test_case.visible.end()));
    const std::vector<float> q = test::random_floats(shape.rows * (shape.key_width + 1), 13, 2);
    const std::vector<float> out = attend(test_case, cache, q);
    for (std::int64_t row = 0; row < shape.rows; ++row) {
        double score_error = 0;
        const std::vector<double> p = probabilities(test_case, cache, q, row, score_error);
        for (std::int64_t i = 0; i < shape.value_width; ++i) {
            double expected = 0;
            double magnitude = 0;
            for (std::int64_t t = test_case.first_key; t < test_case.end_key(row); ++t) {
                expected += p[t] * cache.value(t, i);
                magnitude += p[t] * std::abs(cache.value(t, i));
            }
            // A score's error is the relative error of its probability; probabilities are rounded once more.
            const double relative = 2 * score_error + 2 * test::epsilon(test_case.dtype) + 64 * 0x1p-24;
            ASSERT_NEAR(out[row * shape.value_width + i], expected, magnitude * relative)
                << "row " << row << " of " << i;
        }
    }
}

void check_all_visible(Isa isa, DType dtype, const Shape& shape) {
    check_attention({isa, dtype, shape, std::vector<std::int64_t>(shape.rows, shape.tokens), {shape.tokens}});
}

TEST(Attention, EqualsDoubleSumsForAnyShape) {
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            for (std::int64_t rows = 1; rows <= 20; ++rows) check_all_visible(isa, dtype, {rows, 64, 64, 150});
            for (const Shape& shape : {Shape{3, 1, 1, 1},
                                       {2, 7, 3, 65},
                                       {4, 9, 33, 127},
                                       {9, 15, 17, 66},
                                       {9, 120, 96, 200},
                                       {16, 121, 95, 71},
                                       {33, 24, 8, 100},
                                       {100, 40, 72, 130},
                                       {5, 576, 512, 90},
                                       {3, 130, 31, 64}}) {
                check_all_visible(isa, dtype, shape);
            }
        }
    }
}

TEST(Attention, EveryNumberOfTokensOfATile) {
    for (const Isa isa : supported_isas()) {
        for (std::int64_t tokens = 1; tokens <= 67; ++tokens) {
            check_all_visible(isa, DType::bf16, {3, 16, 16, tokens});
            check_all_visible(isa, DType::bf16, {7, 17, 19, tokens});
            check_all_visible(isa, DType::bf16, {14, 32, 16, tokens});
            check_all_visible(isa, DType::bf16, {20, 64, 40, tokens});
        }
    }
}

TEST(Attention, ReadsALatentAsKeyAndValue) {
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            check_all_visible(isa, dtype, {9, 120, 96, 300, 64, true});
            check_all_visible(isa, dtype, {2, 33, 31, 70, 64, true});
            check_all_visible(isa, dtype, {20, 576, 512, 150, 64, true});
            check_all_visible(isa, dtype, {45, 128, 96, 150, 64, true});
        }
    }
}

TEST(Attention, BlocksOfAnySize) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t block_tokens : {1, 16, 100, 256}) {
            check_all_visible(isa, DType::bf16, {6, 32, 32, 333, block_tokens});
            check_all_visible(isa, DType::bf16, {3, 32, 32, 333, block_tokens});
            check_all_visible(isa, DType::bf16, {14, 32, 32, 333, block_tokens});
            check_all_visible(isa, DType::bf16, {20, 40, 24, 333, block_tokens});
        }
    }
}

TEST(Attention, RowsSeeTheirOwnKeysOnly) {
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            for (const std::int64_t rows : {1, 3, 9, 50, 140}) {
                std::vector<std::int64_t> causal(rows);
                for (std::int64_t row = 0; row < rows; ++row) causal[row] = 30 + row;
                check_attention({isa, dtype, {rows, 40, 24, 400}, causal, {400}});
                std::reverse(causal.begin(), causal.end());
                check_attention({isa, dtype, {rows, 40, 24, 400}, causal, {20, 77, 400}});
            }
        }
    }
}

TEST(Attention, KeyRangesMerge) {
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            const std::vector<std::int64_t> cuts = {64, 65, 190, 256, 390};
            check_attention({isa, dtype, {9, 120, 96, 390}, std::vector<std::int64_t>(9, 390), cuts});
            // The last ranges hold no key that any row sees.
            check_attention({isa, dtype, {3, 64, 64, 390}, {70, 150, 10}, cuts});
        }
    }
}

TEST(Attention, GoesOnWithWhatAnEarlierCallLeft) {
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            const std::vector<std::int64_t> cuts = {64, 65, 190, 256, 390};
            for (const std::int64_t rows : {1, 3, 7, 11, 20, 45}) {
                // The first row sees no key of the last ranges, the second none at all.
                std::vector<std::int64_t> visible(static_cast<std::size_t>(rows), 390);
                visible[0] = 70;
                if (rows > 1) visible[1] = 3;
                check_attention({isa, dtype, {rows, 40, 72, 390}, visible, cuts, false, 3, true});
                check_attention({isa, dtype, {rows, 33, 31, 390, 64, true}, visible, cuts, true, 3, true});
            }
        }
    }
}

TEST(Attention, AddsTheCallersLogits) {
    for (const Isa isa : supported_isas()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
            for (std::int64_t rows = 1; rows <= 40; ++rows) {
                std::vector<std::int64_t> causal(rows);
                for (std::int64_t row = 0; row < rows; ++row) causal[row] = 100 + row;
                check_attention({isa, dtype, {rows, 24, 40, 150}, causal, {150}, true, 7});
                check_attention({isa, dtype, {rows, 33, 31, 150, 64, true}, causal, {64, 81, 150}, true});
            }
        }
    }
}

TEST(Attention, EveryNumberOfTokensOfATileWithTheCallersLogits) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t rows : {1, 6, 9, 14}) {
            for (std::int64_t tokens = 1; tokens <= 67; ++tokens) {
                const std::vector<std::int64_t> all(rows, tokens);
                check_attention({isa, DType::bf16, {rows, 16, 16, tokens}, all, {tokens}, true, tokens / 3});
            }
        }
    }
}

// AVX2 has a way of its own for up to four rows whose widths are whole vectors of bf16.
TEST(Attention, FewRowsOfWholeAndOtherVectors) {
    for (const Isa isa : supported_isas()) {
        for (std::int64_t rows = 1; rows <= 5; ++rows) {
            for (const auto& [keys, values] : {std::pair{64, 64}, {128, 128}, {16, 80}, {96, 48}, {64, 40}, {72, 64}}) {
                std::vector<std::int64_t> causal(rows);
                for (std::int64_t row = 0; row < rows; ++row) causal[row] = 139 + row;
                for (const bool has_bias : {false, true}) {
                    check_attention({isa, DType::bf16, {rows, keys, values, 200}, causal, {70, 200}, has_bias, 7});
                    check_attention({isa, DType::bf16, {rows, keys, values, 200, 48}, causal, {200}, has_bias, 65});
                }
            }
            check_all_visible(isa, DType::bf16, {rows, 64, 32, 130, 64, true});
            for (std::int64_t tokens = 1; tokens <= 67; ++tokens) {
                check_all_visible(isa, DType::bf16, {rows, 32, 48, tokens});
            }
        }
    }
}

TEST(Attention, ARowThatSeesNothingIsEmpty) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t rows : {2, 12}) {
            const Shape shape{rows, 16, 16, 64};
            Cache cache(DType::bf16, shape);
            cache.fill(0, 64);
            std::vector<std::int64_t> visible(rows, 64);
            visible[1] = 32;
            const std::vector<float> q = test::random_floats(rows * 16, 5);
            std::vector<float> out(rows * 16, test::poison), max(rows, test::poison), sum(rows, test::poison);
            test::PoisonedBytes scratch(attention_scratch_bytes(rows, 16, 16));
            kernels(isa).attention({.dtype = DType::bf16,
                                    .q = q.data(),
                                    .q_stride = 16,
                                    .rows = rows,
                                    .key_width = 16,
                                    .value_width = 16,
                                    .key_stride_bytes = cache.key_stride(),
                                    .value_stride_bytes = cache.value_stride(),
                                    .scale = 1.0f,
                                    .blocks = cache.blocks(),
                                    .block_tokens = 64,
                                    .first_key = 32,
                                    .end_key = 64,
                                    .visible = visible.data(),
                                    .out = out.data(),
                                    .out_stride = 16,
                                    .max = max.data(),
                                    .sum = sum.data(),
                                    .scratch = scratch.data()});
            EXPECT_EQ(max[1], -INFINITY);
            EXPECT_EQ(sum[1], 0.0f);
            for (std::int64_t i = 0; i < 16; ++i) EXPECT_EQ(out[16 + i], 0.0f);
            EXPECT_GT(sum[0], 0.0f);
        }
    }
}

TEST(Merge, IgnoresWhatAnEmptyPartHolds) {
    const std::vector<float> partial = {test::poison, test::poison, 6, 8};
    const std::vector<float> max = {-INFINITY, 3};
    const std::vector<float> sum = {0, 2};
    for (const Isa isa : supported_isas()) {
        std::vector<float> out(2, test::poison);
        kernels(isa).merge({partial.data(), max.data(), sum.data(), 2, 1, 2, out.data(), 2});
        EXPECT_THAT(out, testing::ElementsAre(3, 4));
    }
}

TEST(Merge, PartsMayLieApartAndTheLogOfTheSumComesOut) {
    // Rows 0 and 1 of parts of three rows; row 1 saw no key in either.
    const std::vector<float> partial = {2, 4, 9, 5, 8, 9};
    const std::vector<float> max = {1, -INFINITY, test::poison, 1, -INFINITY, test::poison};
    const std::vector<float> sum = {1, 0, test::poison, 3, 0, test::poison};
    for (const Isa isa : supported_isas()) {
        std::vector<float> out(2, test::poison), log_sum(2, test::poison);
        kernels(isa).merge({partial.data(), max.data(), sum.data(), 2, 2, 1, out.data(), 1, 3, log_sum.data()});
        EXPECT_THAT(out, testing::ElementsAre(7 / 4.0f, 0));
        EXPECT_FLOAT_EQ(log_sum[0], 1 + std::log(4.0f));
        EXPECT_EQ(log_sum[1], -INFINITY);
    }
}

TEST(Merge, WorksInPlace) {
    const std::vector<float> max = {0, std::log(3.0f)};
    const std::vector<float> sum = {1, 1};
    for (const Isa isa : supported_isas()) {
        std::vector<float> partial = {4, 8, 8, 4};
        kernels(isa).merge({partial.data(), max.data(), sum.data(), 2, 1, 2, partial.data(), 2});
        EXPECT_FLOAT_EQ(partial[0], 7);
        EXPECT_FLOAT_EQ(partial[1], 5);
    }
}

}  // namespace
}  // namespace mha2mla::kernels
