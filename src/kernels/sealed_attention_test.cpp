#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>

#include "kernels/test_support.h"

namespace mha2mla::kernels {
namespace {

constexpr std::int64_t block_tokens = 64;
constexpr std::int64_t bias_block_tokens = 2 * block_tokens;

/// How a part of a row is coded.
struct Coding {
    int bits;
    std::int64_t group;  // 0: by channel
};

struct Shape {
    std::int64_t heads;
    std::int64_t query_tokens;  // each sees `step` keys more than the one before
    std::int64_t first_width;   // of a latent, or of a key
    std::int64_t second_width;  // of rotary keys
    std::int64_t value_width;   // 0: the first part of the key is the value
    std::int64_t keys;          // the last block is open if it is not full
    std::int64_t step = 1;      // see query_tokens

    std::int64_t rows() const { return heads * query_tokens; }
    std::int64_t key_width() const { return first_width + second_width; }
    std::int64_t values() const { return value_width == 0 ? first_width : value_width; }
};

/// What sealed pages hold where it is not random.
struct Filling {
    bool unit_scales = false;
    int byte = -1;  // of all codes
};

struct Case {
    Isa isa;
    Coding first;
    Coding second;
    Shape shape;
    std::int64_t first_key = 0;
    Filling filling = {};
    bool has_bias = false;
    std::int64_t slack = 2;  // bytes behind each row that belong to nobody

    /// AVX-512 rounds what it multiplies to bf16. All but the portable set multiply such codes by queries and
    /// probabilities of 8 bits.
    bool rounds() const {
        if (isa >= Isa::avx512) return true;
        return isa != Isa::portable && shape.value_width == 0 && first.bits == 4 && first.group == 0 &&
               (shape.second_width == 0 || ((second.bits == 4 || second.bits == 8) && second.group == 0));
    }
};

std::int64_t groups_of(const CodedRows& rows) { return (rows.width + rows.group - 1) / rows.group; }

struct Place {
    std::int64_t offset;
    std::int64_t slack;  // bytes behind each row
};

CodedRows coded_rows(const Coding& coding, std::int64_t width, const Place& place) {
    const std::int64_t offset = place.offset;
    CodedRows rows{.bits = coding.bits, .width = width, .group = coding.group, .offset_bytes = offset};
    rows.row_bytes = (width * coding.bits + 7) / 8 + place.slack;
    rows.scales_offset_bytes = offset + block_tokens * rows.row_bytes;
    return rows;
}

std::int64_t end_of(const CodedRows& rows) {
    if (rows.bits > 8) return rows.scales_offset_bytes;
    return rows.scales_offset_bytes + 4 * (rows.group == 0 ? rows.width : block_tokens * groups_of(rows));
}

void put_bf16(char* at, float x) { test::store(x, core::DType::bf16, at); }

double bf16_at(const char* at) {
    core::bf16 half;
    std::memcpy(&half, at, sizeof half);
    return core::to_float(half);
}

struct Tokens {
    std::int64_t first;
    std::int64_t end;
};

/// Random codes and scales for some tokens of a block full of poison; the bits behind a row's last code stay set.
void fill(const CodedRows& rows, char* block, const Tokens& tokens, std::uint64_t seed, const Filling& filling = {}) {
    core::Random random(seed);
    const auto number = [&] { return static_cast<float>(2 * random.uniform() - 1); };
    char* const scales = block + rows.scales_offset_bytes;
    const auto put_scale = [&](std::int64_t group) {
        const float scale = std::abs(number()) / static_cast<float>(1 << rows.bits);
        put_bf16(scales + 4 * group, filling.unit_scales ? 1.0F : scale);
        put_bf16(scales + 4 * group + 2, number());
    };
    for (std::int64_t i = 0; rows.bits <= 8 && rows.group == 0 && i < rows.width; ++i) put_scale(i);
    for (std::int64_t t = tokens.first; t < tokens.end; ++t) {
        auto* const row = reinterpret_cast<unsigned char*>(block + rows.offset_bytes + t * rows.row_bytes);
        for (std::int64_t i = 0; i < rows.width; ++i) {
            if (rows.bits == 16) {
                put_bf16(reinterpret_cast<char*>(row) + 2 * i, number());
                continue;
            }
            const unsigned mask = ((1u << rows.bits) - 1) << (i * rows.bits % 8);
            unsigned char& byte = row[i * rows.bits / 8];
            const std::uint64_t codes = filling.byte < 0 ? random.below(256) : static_cast<unsigned>(filling.byte);
            byte = static_cast<unsigned char>((byte & ~mask) | (codes & mask));
        }
        for (std::int64_t g = 0; rows.group > 0 && g < groups_of(rows); ++g) put_scale(t * groups_of(rows) + g);
    }
}

/// The definition, in double.
double element(const CodedRows& rows, const char* block, std::int64_t token, std::int64_t i) {
    const char* const row = block + rows.offset_bytes + token * rows.row_bytes;
    if (rows.bits == 16) return bf16_at(row + 2 * i);
    const int byte = static_cast<unsigned char>(row[i * rows.bits / 8]);
    const int code = byte / (1 << (i * rows.bits % 8)) % (1 << rows.bits);
    const std::int64_t group = rows.group == 0 ? i : token * groups_of(rows) + i / rows.group;
    const char* const scale = block + rows.scales_offset_bytes + 4 * group;
    return bf16_at(scale + 2) + code * bf16_at(scale);
}

/// Sealed blocks, and an open one at the end. Only keys that some row sees are no poison.
class Cache {
public:
    explicit Cache(const Case& test_case) : shape_(test_case.shape), filling_(test_case.filling) {
        const std::int64_t slack = test_case.slack;
        sealed_.keys[0] = coded_rows(test_case.first, shape_.first_width, {0, slack});
        sealed_.keys[1] = coded_rows(test_case.second, shape_.second_width, {end_of(sealed_.keys[0]), slack});
        sealed_.values = sealed_.keys[0];
        if (!is_latent()) sealed_.values = coded_rows(test_case.second, shape_.value_width, {0, slack});
        for (std::int64_t first = 0; first < shape_.keys; first += block_tokens) {
            const std::int64_t tokens = std::min(block_tokens, shape_.keys - first);
            const std::int64_t seen = std::clamp(test_case.first_key - first, std::int64_t{0}, tokens);
            add_block(tokens, tokens == block_tokens, seen);
        }
    }

    bool is_latent() const { return shape_.value_width == 0; }
    const SealedFormat& sealed() const { return sealed_; }
    const std::vector<KeyValueBlock>& blocks() const { return blocks_; }

    double key(std::int64_t t, std::int64_t i) const {
        const KeyValueBlock& block = blocks_[t / block_tokens];
        const auto* const keys = static_cast<const char*>(block.keys);
        if (!block.sealed) return bf16_at(keys + (t % block_tokens * shape_.key_width() + i) * 2);
        const bool first = i < shape_.first_width;
        return element(sealed_.keys[first ? 0 : 1], keys, t % block_tokens, first ? i : i - shape_.first_width);
    }
    double value(std::int64_t t, std::int64_t i) const {
        if (is_latent()) return key(t, i);
        const KeyValueBlock& block = blocks_[t / block_tokens];
        const auto* const values = static_cast<const char*>(block.values);
        if (!block.sealed) return bf16_at(values + (t % block_tokens * shape_.value_width + i) * 2);
        return element(sealed_.values, values, t % block_tokens, i);
    }

private:
    char* add_memory(std::int64_t bytes) {
        memory_.emplace_back(static_cast<std::size_t>(bytes));
        return static_cast<char*>(memory_.back().data());
    }
    void add_block(std::int64_t tokens, bool sealed, std::int64_t first) {
        const std::uint64_t seed = 100 * blocks_.size();
        char* const keys = add_memory(sealed ? end_of(sealed_.keys[1]) : tokens * shape_.key_width() * 2);
        char* const values =
            is_latent() ? keys : add_memory(sealed ? end_of(sealed_.values) : tokens * shape_.value_width * 2);
        blocks_.push_back({keys, values, tokens, sealed});
        if (sealed) {
            for (const CodedRows& part : sealed_.keys) {
                fill(part, keys, {first, tokens}, seed + part.offset_bytes, filling_);
            }
            if (!is_latent()) fill(sealed_.values, values, {first, tokens}, seed + 1);
            return;
        }
        fill({.width = shape_.key_width(), .row_bytes = shape_.key_width() * 2}, keys, {first, tokens}, seed);
        if (!is_latent()) {
            fill({.width = shape_.value_width, .row_bytes = shape_.value_width * 2}, values, {first, tokens}, seed + 1);
        }
    }

    Shape shape_;
    Filling filling_;
    SealedFormat sealed_;
    std::deque<test::PoisonedBytes> memory_;
    std::vector<KeyValueBlock> blocks_;
};

std::int64_t visible_keys(const Shape& shape, std::int64_t row) {
    return shape.keys - (shape.query_tokens - 1 - row / shape.heads) * shape.step;
}

std::int64_t bias_index(const Shape& shape, std::int64_t row, std::int64_t key) {
    return (key / bias_block_tokens * shape.rows() + row) * bias_block_tokens + key % bias_block_tokens;
}

/// [blocks, rows, bias_block_tokens], poison where the row sees no key.
std::vector<float> bias_of(const Case& test_case) {
    const Shape& shape = test_case.shape;
    const std::int64_t blocks = (shape.keys + bias_block_tokens - 1) / bias_block_tokens;
    std::vector<float> bias(static_cast<std::size_t>(blocks * shape.rows() * bias_block_tokens), test::poison);
    const std::vector<float> numbers = test::random_floats(shape.rows() * shape.keys, 5);
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        for (std::int64_t t = test_case.first_key; t < visible_keys(shape, row); ++t) {
            bias[bias_index(shape, row, t)] = numbers[row * shape.keys + t];
        }
    }
    return bias;
}

/// The kernel's result; `out` is normalized.
struct Attended {
    std::vector<float> out;
    std::vector<float> max;
};
Attended attend(const Case& test_case, const Cache& cache, const std::vector<float>& q) {
    const Shape& shape = test_case.shape;
    const std::vector<float> bias = bias_of(test_case);
    std::vector<std::int64_t> visible;
    for (std::int64_t row = 0; row < shape.rows(); ++row) visible.push_back(visible_keys(shape, row));
    std::vector<float> out(shape.rows() * shape.values(), test::poison), max(shape.rows()), sum(shape.rows());
    const std::size_t scratch_bytes = attention_scratch_bytes(shape.rows(), shape.key_width(), shape.values());
    test::PoisonedBytes scratch(scratch_bytes + 64);
    kernels(test_case.isa)
        .attention({.dtype = core::DType::bf16,
                    .q = q.data(),
                    .q_stride = shape.key_width(),
                    .rows = shape.rows(),
                    .key_width = shape.key_width(),
                    .value_width = shape.values(),
                    .key_stride_bytes = shape.key_width() * 2,
                    .value_stride_bytes = (cache.is_latent() ? shape.key_width() : shape.value_width) * 2,
                    .scale = 1 / std::sqrt(static_cast<float>(shape.key_width())),
                    .logit_bias = test_case.has_bias ? bias.data() : nullptr,
                    .logit_bias_block_tokens = bias_block_tokens,
                    .logit_bias_block_stride = shape.rows() * bias_block_tokens,
                    .logit_bias_stride = bias_block_tokens,
                    .blocks = cache.blocks().data(),
                    .block_tokens = block_tokens,
                    .sealed = cache.sealed(),
                    .first_key = test_case.first_key,
                    .end_key = shape.keys,
                    .visible = visible.data(),
                    .out = out.data(),
                    .out_stride = shape.values(),
                    .max = max.data(),
                    .sum = sum.data(),
                    .scratch = scratch.data()});
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(out.size()); ++i) out[i] /= sum[i / shape.values()];
    const auto* const behind = static_cast<const std::byte*>(scratch.data()) + scratch_bytes;
    EXPECT_TRUE(std::all_of(behind, behind + 64, [](std::byte byte) { return byte == std::byte{0xff}; }))
        << "the kernel writes behind its scratch";
    return {std::move(out), std::move(max)};
}

testing::Message label(const Case& test_case) {
    const Shape& shape = test_case.shape;
    return testing::Message() << name_of(test_case.isa) << " bits " << test_case.first.bits << " groups of "
                              << test_case.first.group << ", then " << test_case.second.bits << " of "
                              << test_case.second.group << "; " << shape.heads << " x " << shape.query_tokens
                              << " rows, widths " << shape.first_width << " + " << shape.second_width << ", "
                              << shape.value_width << ", keys " << shape.keys;
}

double logit(const Shape& shape, const Cache& cache, const std::vector<float>& q, std::int64_t row, std::int64_t t) {
    double score = 0;
    for (std::int64_t i = 0; i < shape.key_width(); ++i) {
        score += static_cast<double>(q[row * shape.key_width() + i]) * cache.key(t, i);
    }
    return score / std::sqrt(static_cast<double>(shape.key_width()));
}

void check(const Case& test_case) {
    const Shape& shape = test_case.shape;
    SCOPED_TRACE(label(test_case));
    const Cache cache(test_case);
    const std::vector<float> q = test::random_floats(shape.rows() * shape.key_width(), 3, 2);
    const auto [out, max] = attend(test_case, cache, q);
    const std::vector<float> bias = bias_of(test_case);
    const double tolerance = test_case.rounds() ? 4e-3 : 3e-5;
    const double score_tolerance = test_case.rounds() ? 2e-2 : 1e-4;
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        if (visible_keys(shape, row) <= test_case.first_key) {
            EXPECT_EQ(max[row], -std::numeric_limits<float>::infinity()) << "row " << row << " sees no key";
            continue;
        }
        std::vector<double> expected(shape.values());
        double sum = 0, largest = -std::numeric_limits<double>::infinity();
        for (std::int64_t t = test_case.first_key; t < visible_keys(shape, row); ++t) {
            const double added = test_case.has_bias ? bias[bias_index(shape, row, t)] : 0;
            const double score = logit(shape, cache, q, row, t) + added;
            const double p = std::exp(score);
            largest = std::max(largest, score);
            sum += p;
            for (std::int64_t i = 0; i < shape.values(); ++i) expected[i] += p * cache.value(t, i);
        }
        ASSERT_NEAR(max[row], largest, score_tolerance) << "row " << row;
        for (std::int64_t i = 0; i < shape.values(); ++i) {
            ASSERT_NEAR(out[row * shape.values() + i], expected[i] / sum, tolerance)
                << "row " << row << " channel " << i;
        }
    }
}

constexpr Coding int8{8, 32};
constexpr Coding int4{4, 32};
constexpr Coding int2{2, 32};
constexpr Coding int4_wide{4, 64};
constexpr Coding int8_narrow{8, 8};
constexpr Coding int4_channels{4, 0};
constexpr Coding int2_channels{2, 0};
constexpr Coding int8_channels{8, 0};
constexpr Coding numbers{16, 0};

template <typename Visit>
void for_each_format(const Visit& visit) {
    for (const Isa isa : supported_isas()) {
        for (const auto& [first, second] : {std::pair{int4, int8},
                                            {int8, int8},
                                            {int2, int8},
                                            {int4_wide, int8_narrow},
                                            {int4_channels, int8_channels},
                                            {int4_channels, int4_channels},
                                            {int2_channels, int2},
                                            {int8_channels, numbers},
                                            {numbers, int4}}) {
            visit(isa, first, second);
        }
    }
}

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

TEST(SealedAttention, NanStaysInItsRow) {
    for_each_format([](Isa isa, const Coding& first, const Coding& second) {
        for (const Shape& shape : {Shape{9, 1, 40, 6, 0, 192}, Shape{9, 2, 40, 6, 0, 150}}) {
            const Case test_case{isa, first, second, shape};
            SCOPED_TRACE(label(test_case));
            std::vector<float> q = test::random_floats(shape.rows() * shape.key_width(), 3, 2);
            q[4 * shape.key_width() + 7] = test::poison;
            const std::vector<float> out = attend(test_case, Cache(test_case), q).out;
            for (std::int64_t i = 0; i < static_cast<std::int64_t>(out.size()); ++i) {
                ASSERT_EQ(std::isnan(out[i]), i / shape.values() == 4) << i;
            }
        }
    });
}

TEST(SealedAttention, AnyNumberOfKeysAndAnyFirst) {
    for (const Isa isa : supported_isas()) {
        for (std::int64_t keys = 64; keys <= 130; ++keys) {
            check({isa, int4, int8, {3, 1, 17, 3, 0, keys}});
            check({isa, int4, int8, {3, 1, 17, 3, 0, keys}, keys - 62});
            check({isa, int4_channels, int8_channels, {3, 1, 17, 3, 0, keys}});
            check({isa, int4_channels, int8_channels, {3, 1, 17, 3, 0, keys}, keys - 62});
            check({isa, int4_channels, int8_channels, {3, 2, 17, 3, 0, keys}, 2, {}, true});
            check({isa, int4, int8, {3, 2, 17, 3, 0, keys}, 2, {}, true});
        }
    }
}

// All queries, codes and probabilities as large as they get: no sum of products may leave its bits. Logits reach
// 60,000, and an overflow would cost thousands.
TEST(SealedAttention, ManyChannelsDoNotOverflow) {
    for (const Isa isa : supported_isas()) {
        check({isa, int4_channels, int8_channels, {4, 1, 1031, 260, 0, 130}});
        for (const int byte : {0x00, 0xff}) {
            const Case test_case{isa, int4_channels, int4_channels, {3, 1, 1024, 64, 0, 128}, 0, {true, byte}};
            const Shape& shape = test_case.shape;
            const Cache cache(test_case);
            for (const float sign : {-127.F, 127.F}) {
                const std::vector<float> q(shape.rows() * shape.key_width(), sign);
                const Attended attended = attend(test_case, cache, q);
                double max = -1e30;
                for (std::int64_t t = 0; t < shape.keys; ++t) max = std::max(max, logit(shape, cache, q, 0, t));
                EXPECT_NEAR(attended.max[0], max, 0.1) << name_of(isa) << " " << byte;
            }
            const Attended means = attend(test_case, cache, std::vector<float>(shape.rows() * shape.key_width(), 0));
            for (std::int64_t i = 0; i < shape.values(); ++i) {
                const double mean = (cache.value(0, i) + cache.value(64, i)) / 2;
                ASSERT_NEAR(means.out[i], mean, 1e-4) << name_of(isa) << " " << i;
            }
        }
    }
}

/// Queries of a row that rounding leaves as they are where scales are one. Those of 4-bit codes may be up to 127, and
/// those of 8-bit codes, whose high digits count 16 times, up to 7. On AVX-512 8-bit codes are factors themselves: up
/// to twelve rows (on AMX up to four) with a step of their own; with more rows two 4-bit codes l and h of a byte have
/// the factors f_h = 16 n and f_l = m + n, of whole n and m up to 127.
std::vector<float> whole_queries(const Case& test_case, core::Random& random) {
    const auto step = [&](std::int64_t most) {
        return static_cast<float>(static_cast<std::int64_t>(random.below(2 * most + 1)) - most);
    };
    const Shape& shape = test_case.shape;
    const bool is_avx512 = test_case.isa == Isa::avx512, by_bytes = is_avx512 && shape.rows() > 12;
    std::vector<float> q(shape.key_width());
    for (std::int64_t i = 0; i < shape.key_width(); ++i) {
        const std::int64_t channel = i < shape.first_width ? i : i - shape.first_width;
        const bool has_digits = i < shape.first_width || test_case.second.bits == 4;
        if (!by_bytes) {
            const bool is_largest = is_avx512 ? channel == 0 : i == 0;
            q[i] = is_largest ? 127 : step(has_digits || is_avx512 ? 127 : 7);
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
    for (std::int64_t row = 0; row < shape.rows(); ++row) EXPECT_NEAR(max[row], expected[row], 4e-7 * largest) << row;
}

TEST(SealedAttention, WholeStepsOfQueriesAreExact) {
    for (const Isa isa : supported_isas()) {
        for (const std::int64_t heads : {9, 21}) {
            expect_exact_scores(
                {isa, int4_channels, int8_channels, {heads, 1, 75, 21, 0, 128}, 0, {.unit_scales = true}});
            expect_exact_scores(
                {isa, int4_channels, int4_channels, {heads, 1, 75, 21, 0, 128}, 0, {.unit_scales = true}});
        }
    }
}

// All queries but two are 0.4 of a step: what their rounding loses meets the middle of the codes. It would cost seven
// times as much for each channel if it met nothing.
TEST(SealedAttention, WhatRoundingLosesMeetsTheMiddleOfTheCodes) {
    for (const Isa isa : supported_isas()) {
        for (const int byte : {0x77, 0x88}) {
            const Case test_case{isa, int4_channels, int8_channels, {9, 1, 75, 21, 0, 128}, 0, {true, byte}};
            const Shape& shape = test_case.shape;
            const Cache cache(test_case);
            std::vector<float> q(shape.rows() * shape.key_width(), 0.4F);
            for (std::int64_t row = 0; row < shape.rows(); ++row) {
                q[row * shape.key_width()] = 127 + 127.F / 16;
                q[row * shape.key_width() + 1] = 127;
            }
            const double bound = 0.3 * static_cast<double>(shape.key_width() + shape.second_width) /
                                 std::sqrt(static_cast<double>(shape.key_width()));
            const std::vector<float> max = attend(test_case, cache, q).max;
            double expected = -1e30;
            for (std::int64_t t = 0; t < shape.keys; ++t) expected = std::max(expected, logit(shape, cache, q, 0, t));
            for (const float of_row : max) EXPECT_NEAR(of_row, expected, bound) << name_of(isa) << " " << byte;
        }
    }
}

// Equal scores give equal probabilities, whatever they are rounded to.
TEST(SealedAttention, TheMeanOfValuesIsExact) {
    for (const Isa isa : supported_isas()) {
        const Case test_case{isa, int4_channels, int8_channels, {5, 1, 75, 21, 0, 128}};
        const Shape& shape = test_case.shape;
        const Cache cache(test_case);
        const std::vector<float> q(shape.rows() * shape.key_width(), 0);
        const std::vector<float> out = attend(test_case, cache, q).out;
        for (std::int64_t i = 0; i < static_cast<std::int64_t>(out.size()); ++i) {
            double mean = 0;
            for (std::int64_t t = 0; t < shape.keys; ++t) mean += cache.value(t, i % shape.values()) / 128;
            ASSERT_NEAR(out[i], mean, 2e-6) << name_of(isa) << " " << i;
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
}  // namespace mha2mla::kernels
