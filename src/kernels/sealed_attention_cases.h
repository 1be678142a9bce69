#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>

#include "kernels/test_support.h"

/// Attention over sealed pages beside sums in double precision, for the tests of it.
namespace mha2mla::kernels::sealed {

inline constexpr std::int64_t block_tokens = 64;
inline constexpr std::int64_t bias_block_tokens = 2 * block_tokens;

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
    std::int64_t slack = 2;        // bytes behind each row that belong to nobody
    std::int64_t nan_key = -1;     // whose bias is NaN for row 4
    std::int64_t second_call = 0;  // the first key of a second call that goes on; 0: one call takes all keys

    /// AVX-512 rounds what it multiplies to bf16. All but the portable set multiply such codes by queries and
    /// probabilities of 8 bits.
    bool rounds() const {
        if (isa >= Isa::avx512) return true;
        return isa != Isa::portable && shape.value_width == 0 && first.bits == 4 && first.group == 0 &&
               (shape.second_width == 0 || ((second.bits == 4 || second.bits == 8) && second.group == 0));
    }
};

inline std::int64_t groups_of(const CodedRows& rows) { return (rows.width + rows.group - 1) / rows.group; }

struct Place {
    std::int64_t offset;
    std::int64_t slack;  // bytes behind each row
};

inline CodedRows coded_rows(const Coding& coding, std::int64_t width, const Place& place) {
    const std::int64_t offset = place.offset;
    CodedRows rows{.bits = coding.bits, .width = width, .group = coding.group, .offset_bytes = offset};
    rows.row_bytes = (width * coding.bits + 7) / 8 + place.slack;
    rows.scales_offset_bytes = offset + block_tokens * rows.row_bytes;
    return rows;
}

inline std::int64_t end_of(const CodedRows& rows) {
    if (rows.bits > 8) return rows.scales_offset_bytes;
    return rows.scales_offset_bytes + 4 * (rows.group == 0 ? rows.width : block_tokens * groups_of(rows));
}

inline void put_bf16(char* at, float x) { test::store(x, core::DType::bf16, at); }

inline double bf16_at(const char* at) {
    core::bf16 half;
    std::memcpy(&half, at, sizeof half);
    return core::to_float(half);
}

struct Tokens {
    std::int64_t first;
    std::int64_t end;
};

/// Random codes and scales for some tokens of a block full of poison; the bits behind a row's last code stay set.
inline void fill(const CodedRows& rows, char* block, const Tokens& tokens, std::uint64_t seed,
                 const Filling& filling = {}) {
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
inline double element(const CodedRows& rows, const char* block, std::int64_t token, std::int64_t i) {
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

inline std::int64_t visible_keys(const Shape& shape, std::int64_t row) {
    return shape.keys - (shape.query_tokens - 1 - row / shape.heads) * shape.step;
}

inline std::int64_t bias_index(const Shape& shape, std::int64_t row, std::int64_t key) {
    return (key / bias_block_tokens * shape.rows() + row) * bias_block_tokens + key % bias_block_tokens;
}

/// [blocks, rows, bias_block_tokens], poison where the row sees no key.
inline std::vector<float> bias_of(const Case& test_case) {
    const Shape& shape = test_case.shape;
    const std::int64_t blocks = (shape.keys + bias_block_tokens - 1) / bias_block_tokens;
    std::vector<float> bias(static_cast<std::size_t>(blocks * shape.rows() * bias_block_tokens), test::poison);
    const std::vector<float> numbers = test::random_floats(shape.rows() * shape.keys, 5);
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        for (std::int64_t t = test_case.first_key; t < visible_keys(shape, row); ++t) {
            bias[bias_index(shape, row, t)] = numbers[row * shape.keys + t];
        }
    }
    if (test_case.nan_key >= 0) bias[bias_index(shape, 4, test_case.nan_key)] = test::poison;
    return bias;
}

/// The kernel's result; `out` is normalized.
struct Attended {
    std::vector<float> out;
    std::vector<float> max;
};
inline Attended attend(const Case& test_case, const Cache& cache, const std::vector<float>& q) {
    const Shape& shape = test_case.shape;
    const std::vector<float> bias = bias_of(test_case);
    std::vector<std::int64_t> visible;
    for (std::int64_t row = 0; row < shape.rows(); ++row) visible.push_back(visible_keys(shape, row));
    std::vector<float> out(shape.rows() * shape.values(), test::poison), max(shape.rows()), sum(shape.rows());
    const std::size_t scratch_bytes = attention_scratch_bytes(shape.rows(), shape.key_width(), shape.values());
    test::PoisonedBytes scratch(scratch_bytes + 64);
    AttentionParams params{.dtype = core::DType::bf16,
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
                           .scratch = scratch.data()};
    if (test_case.second_call > 0) {
        params.end_key = test_case.second_call;
        kernels(test_case.isa).attention(params);
        params.continues = true;
        params.first_key = test_case.second_call;
        params.end_key = shape.keys;
        params.logit_bias_first_block = test_case.second_call / bias_block_tokens;
        if (test_case.has_bias) params.logit_bias += params.logit_bias_first_block * params.logit_bias_block_stride;
    }
    kernels(test_case.isa).attention(params);
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(out.size()); ++i) out[i] /= sum[i / shape.values()];
    const auto* const behind = static_cast<const std::byte*>(scratch.data()) + scratch_bytes;
    EXPECT_TRUE(std::all_of(behind, behind + 64, [](std::byte byte) { return byte == std::byte{0xff}; }))
        << "the kernel writes behind its scratch";
    return {std::move(out), std::move(max)};
}

inline testing::Message label(const Case& test_case) {
    const Shape& shape = test_case.shape;
    return testing::Message() << name_of(test_case.isa) << " bits " << test_case.first.bits << " groups of "
                              << test_case.first.group << ", then " << test_case.second.bits << " of "
                              << test_case.second.group << "; " << shape.heads << " x " << shape.query_tokens
                              << " rows, widths " << shape.first_width << " + " << shape.second_width << ", "
                              << shape.value_width << ", keys " << shape.keys;
}

inline double logit(const Shape& shape, const Cache& cache, const std::vector<float>& q, std::int64_t row,
                    std::int64_t t) {
    double score = 0;
    for (std::int64_t i = 0; i < shape.key_width(); ++i) {
        score += static_cast<double>(q[row * shape.key_width() + i]) * cache.key(t, i);
    }
    return score / std::sqrt(static_cast<double>(shape.key_width()));
}

inline void check(const Case& test_case) {
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

inline constexpr Coding int8{8, 32};
inline constexpr Coding int4{4, 32};
inline constexpr Coding int2{2, 32};
inline constexpr Coding int4_wide{4, 64};
inline constexpr Coding int8_narrow{8, 8};
inline constexpr Coding int4_channels{4, 0};
inline constexpr Coding int2_channels{2, 0};
inline constexpr Coding int8_channels{8, 0};
inline constexpr Coding numbers{16, 0};

template <typename Visit>
inline void for_each_format(const Visit& visit) {
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

}  // namespace mha2mla::kernels::sealed
