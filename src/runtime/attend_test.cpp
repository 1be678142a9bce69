#include "runtime/attend.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <ostream>
#include <vector>

#include "cache/sequence_cache.h"
#include "core/random.h"
#include "runtime/position_table.h"

namespace mha2mla::runtime {
namespace {

/// One KV head of width 8 over a cache whose memory was filled with NaN: a row that no query may see poisons the result
/// when it is read.
class PoisonedCache {
public:
    explicit PoisonedCache(std::int64_t keys)
        : keys_(keys), pool_({cache::grouped_query_format(core::DType::f32, 1, width)}, keys), cache_(pool_) {
        poison();
        cache_.reserve(keys);
        for (std::int64_t token = 0; token < keys; ++token) {
            for (std::int64_t i = 0; i < width; ++i) {
                key(token)[i] = random_number();
                value(token)[i] = random_number();
            }
        }
        cache_.commit(keys);
    }

    float* key(std::int64_t token) { return reinterpret_cast<float*>(cache_.row(0, cache::key_plane(0), token)); }
    float* value(std::int64_t token) { return reinterpret_cast<float*>(cache_.row(0, cache::value_plane(0), token)); }
    float random_number() { return static_cast<float>(2 * random_.uniform() - 1); }

    std::vector<kernels::KeyValueBlock> blocks() const {
        std::vector<kernels::KeyValueBlock> blocks(static_cast<std::size_t>(pool_.pages()));
        cache_.list_blocks(0, cache::key_plane(0), cache::value_plane(0), keys_, blocks.data());
        return blocks;
    }

    /// What one row sees: keys [first_key, visible), and a position query that meets cos and sin of each position.
    struct Row {
        const float* q;
        const float* position_q;
        std::int64_t first_key;
        std::int64_t visible;
    };

    /// Values, then the log of the sum.
    std::vector<float> expected(const Row& row, const std::vector<double>& frequencies) {
        std::vector<double> out(width);
        double sum = 0;
        for (std::int64_t token = row.first_key; token < row.visible; ++token) {
            double logit = 0;
            for (std::int64_t i = 0; i < width; ++i) logit += double{row.q[i]} * key(token)[i] * scale;
            for (std::size_t i = 0; i < frequencies.size(); ++i) {
                const double angle = static_cast<double>(token) * frequencies[i];
                logit += row.position_q[i] * std::cos(angle) + row.position_q[i + position_width / 2] * std::sin(angle);
            }
            const double weight = std::exp(logit);
            sum += weight;
            for (std::size_t i = 0; i < width; ++i) out[i] += weight * value(token)[i];
        }
        std::vector<float> result;
        for (const double x : out) result.push_back(sum > 0 ? static_cast<float>(x / sum) : 0);
        result.push_back(static_cast<float>(std::log(sum)));
        return result;
    }

    static constexpr std::int64_t width = 8;
    static constexpr std::int64_t position_width = 32;
    static constexpr float scale = 0.7F;

private:
    void poison() {
        for (cache::PageId page = 0; page < pool_.pages(); ++page) {
            for (const int plane : {cache::key_plane(0), cache::value_plane(0)}) {
                auto* const floats = reinterpret_cast<float*>(pool_.row(0, plane, page, 0));
                std::fill_n(floats, cache::page_tokens * width, std::numeric_limits<float>::quiet_NaN());
            }
        }
    }

    std::int64_t keys_;
    cache::PagePool pool_;
    cache::SequenceCache cache_;
    core::Random random_{5};
};

struct Case {
    std::int64_t rows;
    std::int64_t keys;
    int threads;
    std::int64_t first_key = 0;

    friend std::ostream& operator<<(std::ostream& stream, const Case& c) {
        return stream << c.rows << "_rows_" << c.keys << "_keys_" << c.threads << "_threads_from_key_" << c.first_key;
    }
};

class Attend : public testing::TestWithParam<Case> {};

std::vector<float> random_floats(std::int64_t count, PoisonedCache& cache) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = 2 * cache.random_number();
    return values;
}

TEST_P(Attend, EqualsPlainSoftmaxAndReadsNoUnwrittenRow) {
    const auto [rows, keys, threads, first_key] = GetParam();
    constexpr std::int64_t width = PoisonedCache::width;
    constexpr std::int64_t position_width = PoisonedCache::position_width;
    PoisonedCache cache(keys);
    core::ThreadPool pool(threads);
    Workspace workspace({.tokens = rows,
                         .workers = threads,
                         .heads = 1,
                         .kv_heads = 1,
                         .key_width = width,
                         .value_width = width,
                         .position_width = position_width,
                         .pages = (keys + 63) / 64});
    const auto q = random_floats(rows * width, cache);
    const auto position_q = random_floats(rows * position_width, cache);
    checkpoint::ModelConfig config;
    config.head_dim = position_width;
    config.rope_theta = 10000;
    const RopeTable rope(config, (keys + 63) / 64 * 64, pool);
    const PositionTable positions(rope, core::DType::f32);
    ASSERT_LT(positions.rank(), position_width);
    std::vector<std::int64_t> visible;
    for (std::int64_t row = 0; row < rows; ++row) visible.push_back(keys - rows + row + 1);
    std::vector<float> out(q.size()), log_sum(static_cast<std::size_t>(rows));
    const auto blocks = cache.blocks();
    attend({.dtype = core::DType::f32,
            .streams = 1,
            .rows = rows,
            .key_width = width,
            .value_width = width,
            .key_stride_bytes = 4 * width,
            .value_stride_bytes = 4 * width,
            .scale = PoisonedCache::scale,
            .blocks = blocks.data(),
            .block_count = static_cast<std::int64_t>(blocks.size()),
            .keys = keys,
            .q = q.data(),
            .visible = visible.data(),
            .first_key = first_key,
            .positions = &positions,
            .position_q = position_q.data(),
            .out = out.data(),
            .log_sum = log_sum.data()},
           {.kernels = kernels::kernels(), .pool = pool, .workspace = workspace});
    for (std::int64_t row = 0; row < rows; ++row) {
        const auto expected = cache.expected({.q = q.data() + row * width,
                                              .position_q = position_q.data() + row * position_width,
                                              .first_key = first_key,
                                              .visible = visible[static_cast<std::size_t>(row)]},
                                             checkpoint::rope_frequencies(config));
        for (std::int64_t i = 0; i < width; ++i) {
            ASSERT_NEAR(out[static_cast<std::size_t>(row * width + i)], expected[static_cast<std::size_t>(i)], 1e-5)
                << "row " << row << " element " << i;
        }
        const float sum = log_sum[static_cast<std::size_t>(row)];
        if (std::isfinite(expected.back())) {
            ASSERT_NEAR(sum, expected.back(), 1e-4) << "row " << row;
        } else {
            ASSERT_EQ(sum, expected.back()) << "row " << row << " sees no key";
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attend,
                         testing::Values(Case{1, 1, 2}, Case{1, 63, 2}, Case{3, 64, 2}, Case{1, 5000, 2},
                                         Case{9, 4133, 3}, Case{9, 700, 16}, Case{256, 300, 2}, Case{257, 257, 2},
                                         Case{300, 1000, 3}, Case{500, 777, 1}, Case{9, 700, 3, 4}, Case{9, 11, 2, 4},
                                         Case{3, 64, 2, 64}, Case{300, 333, 2, 40}, Case{9, 700, 2, 100},
                                         Case{1, 5000, 3, 1090}, Case{9, 1220, 1, 330}, Case{200, 2000, 2, 450},
                                         Case{9, 190, 1, 70}, Case{300, 1500, 2, 330}, Case{300, 3000, 2, 330},
                                         Case{60, 5700, 1, 330}),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace mha2mla::runtime
