#include "cache/sequence_cache.h"

#include <algorithm>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace mha2mla::cache {
namespace {

using core::DType;

std::vector<PageFormat> two_layers() {
    return {grouped_query_format(DType::f32, 1, 2), latent_format(DType::f32, 3, 2)};
}

std::size_t planes_of(const PagePool& pool, int layer) { return pool.format(layer).planes.size(); }

/// Writes `value` into the first element of the token's row in every plane of every layer.
void write_token(SequenceCache& cache, std::int64_t token, float value) {
    for (int layer = 0; layer < cache.pool().layers(); ++layer) {
        for (std::size_t plane = 0; plane < planes_of(cache.pool(), layer); ++plane) {
            std::memcpy(cache.row(layer, static_cast<int>(plane), token), &value, sizeof value);
        }
    }
}

void append(SequenceCache& cache, const std::vector<float>& values) {
    cache.reserve(static_cast<std::int64_t>(values.size()));
    for (std::size_t i = 0; i < values.size(); ++i) {
        write_token(cache, cache.tokens() + static_cast<std::int64_t>(i), values[i]);
    }
    cache.commit(static_cast<std::int64_t>(values.size()));
}

/// What the cache holds, which must be the same in every plane.
std::vector<float> contents(const SequenceCache& cache) {
    std::vector<float> values;
    for (std::int64_t token = 0; token < cache.tokens(); ++token) {
        float first = 0;
        std::memcpy(&first, cache.row(0, 0, token), sizeof first);
        for (int layer = 0; layer < cache.pool().layers(); ++layer) {
            for (std::size_t plane = 0; plane < planes_of(cache.pool(), layer); ++plane) {
                float value = 0;
                std::memcpy(&value, cache.row(layer, static_cast<int>(plane), token), sizeof value);
                EXPECT_EQ(value, first) << "token " << token << " layer " << layer << " plane " << plane;
            }
        }
        values.push_back(first);
    }
    return values;
}

std::vector<float> numbers(float first, int count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = first++;
    return values;
}

TEST(SequenceCache, KeepsRowsAcrossPages) {
    PagePool pool(two_layers(), 300);
    SequenceCache cache(pool);
    append(cache, numbers(0, 100));
    append(cache, numbers(100, 60));
    EXPECT_EQ(contents(cache), numbers(0, 160));
    EXPECT_EQ(cache.allocated_bytes(), 3 * pool.page_bytes());
    EXPECT_EQ(cache.used_bytes(), 160 * pool.bytes_per_token());
    EXPECT_EQ(pool.used_bytes(), 160 * pool.bytes_per_token());
}

TEST(SequenceCache, ForkSharesPagesUntilEitherWrites) {
    PagePool pool(two_layers(), 640);
    SequenceCache first(pool);
    append(first, numbers(0, 70));
    SequenceCache second = first.fork();
    EXPECT_EQ(pool.allocated_bytes(), 2 * pool.page_bytes());
    append(second, {-1, -2});
    EXPECT_EQ(pool.allocated_bytes(), 3 * pool.page_bytes()) << "only the open page is copied";
    append(first, {-3});
    EXPECT_EQ(pool.allocated_bytes(), 3 * pool.page_bytes()) << "its page is its own again";
    auto expected = numbers(0, 70);
    expected.push_back(-3);
    EXPECT_EQ(contents(first), expected);
    expected.back() = -1;
    expected.push_back(-2);
    EXPECT_EQ(contents(second), expected);
}

TEST(SequenceCache, TruncateGivesPagesBack) {
    PagePool pool(two_layers(), 320);
    SequenceCache cache(pool);
    append(cache, numbers(0, 200));
    cache.truncate(65);
    EXPECT_EQ(pool.allocated_bytes(), 2 * pool.page_bytes());
    cache.truncate(64);
    EXPECT_EQ(pool.allocated_bytes(), pool.page_bytes());
    EXPECT_EQ(pool.used_bytes(), 64 * pool.bytes_per_token());
    append(cache, numbers(64, 3));
    EXPECT_EQ(contents(cache), numbers(0, 67));
    cache.truncate(0);
    EXPECT_EQ(pool.allocated_bytes(), 0u);
}

TEST(SequenceCache, AFullPoolRefusesAndChangesNothing) {
    PagePool pool(two_layers(), 2 * page_tokens);
    SequenceCache cache(pool);
    append(cache, numbers(0, 100));
    EXPECT_EQ(cache.room(), 28);
    EXPECT_THROW(cache.reserve(29), core::Error);
    EXPECT_EQ(contents(cache), numbers(0, 100));
    EXPECT_EQ(cache.room(), 28);
    const SequenceCache fork = cache.fork();
    EXPECT_EQ(cache.room(), 0) << "writing would need a copy of the shared page";
    EXPECT_THROW(cache.reserve(1), core::Error);
}

TEST(SequenceCache, ListsBlocksUpToTheLastToken) {
    PagePool pool(two_layers(), 320);
    SequenceCache cache(pool);
    append(cache, numbers(0, 130));
    std::vector<kernels::KeyValueBlock> blocks(3);
    cache.list_blocks(0, key_plane(0), value_plane(0), 130, blocks.data());
    EXPECT_EQ(blocks[1].tokens, 64);
    EXPECT_EQ(blocks[2].tokens, 2);
    EXPECT_EQ(blocks[2].keys, cache.row(0, key_plane(0), 128));
    EXPECT_EQ(blocks[1].values, cache.row(0, value_plane(0), 64));
}

TEST(SequenceCache, MoveLeavesOneOwner) {
    PagePool pool(two_layers(), 128);
    {
        SequenceCache first(pool);
        append(first, numbers(0, 3));
        SequenceCache second = std::move(first);
        EXPECT_EQ(contents(second), numbers(0, 3));
        SequenceCache third(pool);
        third = std::move(second);
        EXPECT_EQ(pool.allocated_bytes(), pool.page_bytes());
    }
    EXPECT_EQ(pool.allocated_bytes(), 0u);
}

SinkFormat three_sinks() { return {.tokens = 3, .layers = 2, .layer = grouped_query_format(DType::f32, 2, 4)}; }

/// Numbers every row of the sinks, plane by plane, from `first` on.
void write_sinks(const SequenceCache& cache, float first) {
    for (int plane = 0; plane < 2 * 4; ++plane) {
        for (std::int64_t token = 0; token < 3; ++token) {
            const float row[] = {first, first, first, first};
            std::memcpy(cache.sink_row(plane / 4, plane % 4, token), row, sizeof row);
            ++first;
        }
    }
}

void expect_sinks(const SequenceCache& cache, float first) {
    for (int plane = 0; plane < 2 * 4; ++plane) {
        for (std::int64_t token = 0; token < 3; ++token) {
            float row[4] = {};
            std::memcpy(row, cache.sink_row(plane / 4, plane % 4, token), sizeof row);
            EXPECT_THAT(row, testing::Each(first)) << "plane " << plane << " token " << token;
            ++first;
        }
    }
}

TEST(SequenceCache, AForkHasSinksOfItsOwn) {
    PagePool pool(two_layers(), 640, three_sinks());
    SequenceCache first(pool);
    append(first, numbers(0, 70));
    write_sinks(first, 100);
    const SequenceCache second = first.fork();
    expect_sinks(second, 100);
    write_sinks(second, 500);
    SequenceCache moved = std::move(first);
    moved.truncate(3);
    expect_sinks(moved, 100);
    expect_sinks(second, 500);
}

TEST(SequenceCache, SinksCountAsAllocatedAndUsed) {
    PagePool pool(two_layers(), 640, three_sinks());
    const std::size_t row_bytes = 2 * 2 * 2 * 4 * sizeof(float);  // layers, keys and values, heads, width
    {
        SequenceCache cache(pool);
        EXPECT_EQ(cache.allocated_bytes(), 3 * row_bytes);
        append(cache, {1, 2});
        EXPECT_EQ(cache.used_bytes(), 2 * (pool.bytes_per_token() + row_bytes));
        append(cache, numbers(3, 68));
        EXPECT_EQ(cache.allocated_bytes(), 2 * pool.page_bytes() + 3 * row_bytes);
        EXPECT_EQ(cache.used_bytes(), 70 * pool.bytes_per_token() + 3 * row_bytes);
        SequenceCache fork = cache.fork();
        EXPECT_EQ(pool.allocated_bytes(), 2 * pool.page_bytes() + 2 * 3 * row_bytes);
        EXPECT_EQ(pool.used_bytes(), 70 * pool.bytes_per_token() + 2 * 3 * row_bytes);
        fork.truncate(1);
        EXPECT_EQ(fork.used_bytes(), pool.bytes_per_token() + row_bytes);
        cache = std::move(fork);
    }
    EXPECT_EQ(pool.allocated_bytes(), 0u);
    EXPECT_EQ(pool.used_bytes(), 0u);
}

/// Sealed cache with rows whose numbers all formats keep: a row is one number.
class Sealed : public testing::Test {
protected:
    static std::vector<PageFormat> layers() {
        const auto format = parse_cache_format("int4", "test");
        return {grouped_query_format(format, 1, 8), latent_format(format, 9, 3)};
    }

    /// Appends tokens whose rows hold `value` throughout, in pieces.
    static void append(SequenceCache& cache, const std::vector<float>& values, std::size_t piece) {
        for (std::size_t first = 0; first < values.size(); first += piece) {
            const std::size_t count = std::min(piece, values.size() - first);
            cache.reserve(static_cast<std::int64_t>(count));
            // As a forward pass does: a layer is written and sealed before the next.
            for (int layer = 0; layer < cache.pool().layers(); ++layer) {
                for (std::size_t i = 0; i < count; ++i) {
                    write(cache, layer, cache.tokens() + static_cast<std::int64_t>(i), values[first + i]);
                }
                const auto full = cache.full_pages(static_cast<std::int64_t>(count));
                for (std::int64_t page = full.begin; page < full.end; ++page) cache.seal(layer, page);
            }
            cache.commit(static_cast<std::int64_t>(count));
        }
    }

    static void write(SequenceCache& cache, int layer, std::int64_t token, float value) {
        const auto& planes = cache.pool().format(layer).planes;
        for (std::size_t plane = 0; plane < planes.size(); ++plane) {
            auto* row = reinterpret_cast<core::bf16*>(cache.row(layer, static_cast<int>(plane), token));
            std::fill_n(row, planes[plane].width, core::to_bf16(value));
        }
    }

    /// Every token's number, read as a kernel reads it, the same in all layers and columns.
    static std::vector<float> contents(const SequenceCache& cache) {
        std::vector<float> values;
        for (int layer = 0; layer < cache.pool().layers(); ++layer) {
            for (int plane = 0; plane < static_cast<int>(planes_of(cache.pool(), layer)); ++plane) {
                const std::vector<float> seen = column(cache, layer, plane);
                if (values.empty()) values = seen;
                EXPECT_EQ(values, seen) << "layer " << layer << " plane " << plane;
            }
        }
        return values;
    }

    static std::vector<float> column(const SequenceCache& cache, int layer, int plane) {
        const PageFormat& format = cache.pool().format(layer);
        std::vector<kernels::KeyValueBlock> blocks(20);
        cache.list_blocks(layer, plane, plane, cache.tokens(), blocks.data());
        std::vector<float> values;
        for (std::int64_t token = 0; token < cache.tokens(); ++token) {
            const auto& block = blocks[static_cast<std::size_t>(token / page_tokens)];
            const auto parts = block.sealed ? format.sealed_format(plane, plane) : format.exact_format(plane, plane);
            std::vector<float> row(40);
            kernels::kernels().load_rows({.block = block.keys,
                                          .parts = {parts.keys[0], parts.keys[1]},
                                          .first_row = token % page_tokens,
                                          .rows = 1,
                                          .y = row.data(),
                                          .y_stride = 40});
            for (std::int64_t i = 1; i < format.planes[static_cast<std::size_t>(plane)].width; ++i) {
                EXPECT_EQ(row[static_cast<std::size_t>(i)], row[0]);
            }
            values.push_back(row[0]);
        }
        return values;
    }

    PagePool pool_{layers(), 20 * page_tokens};
};

TEST_F(Sealed, FullPagesAreSealedInWhateverPiecesTheyCome) {
    std::vector<std::vector<std::byte>> pages;
    for (const std::size_t piece : {200, 64, 70, 1}) {
        SequenceCache cache(pool_);
        append(cache, numbers(0, 200), piece);
        EXPECT_EQ(contents(cache), numbers(0, 200));
        std::vector<kernels::KeyValueBlock> blocks(4);
        cache.list_blocks(1, latent_plane(), latent_plane(), 200, blocks.data());
        for (std::size_t page = 0; page < 4; ++page) EXPECT_EQ(blocks[page].sealed, page < 3);
        const auto* bytes = static_cast<const std::byte*>(blocks[2].keys);
        pages.emplace_back(bytes, bytes + pool_.format(1).full_page_bytes());
    }
    for (const auto& page : pages) EXPECT_EQ(page, pages.front());
}

TEST_F(Sealed, OnlyThePageThatIsWrittenCostsExactRows) {
    SequenceCache cache(pool_);
    append(cache, numbers(0, 200), 200);
    const std::size_t open = 64 * 2 * (8 + 8 + 12);
    EXPECT_EQ(cache.allocated_bytes(), 4 * pool_.page_bytes() + open);
    EXPECT_EQ(pool_.allocated_bytes(), cache.allocated_bytes());
    EXPECT_EQ(cache.used_bytes(), 3 * pool_.page_bytes() + open / 8) << "8 of 64 rows";
    EXPECT_EQ(pool_.used_bytes(), cache.used_bytes());
    append(cache, numbers(200, 56), 56);
    EXPECT_EQ(cache.allocated_bytes(), 4 * pool_.page_bytes());
}

TEST_F(Sealed, ForksShareSealedPagesAndCopyTheOpenOne) {
    SequenceCache first(pool_);
    append(first, numbers(0, 70), 70);
    SequenceCache second = first.fork();
    append(second, numbers(-100, 100), 7);
    append(first, numbers(70, 60), 60);
    EXPECT_EQ(contents(first), numbers(0, 130));
    auto expected = numbers(0, 70);
    for (const float x : numbers(-100, 100)) expected.push_back(x);
    EXPECT_EQ(contents(second), expected);
    EXPECT_EQ(pool_.pages() - pool_.free_pages(), 3 + 2) << "the first page is shared";
}

TEST_F(Sealed, ATruncatedPageIsOpenedAgainForItsOwnSequenceOnly) {
    SequenceCache first(pool_);
    append(first, numbers(0, 128), 128);
    SequenceCache second = first.fork();
    second.truncate(30);
    EXPECT_EQ(contents(second), numbers(0, 30));
    append(second, {7, 8}, 1);
    auto expected = numbers(0, 30);
    expected.insert(expected.end(), {7, 8});
    EXPECT_EQ(contents(second), expected);
    EXPECT_EQ(contents(first), numbers(0, 128));
    second = SequenceCache(pool_);
    first.truncate(100);
    const std::size_t before = pool_.allocated_bytes();
    append(first, numbers(100, 28), 28);
    EXPECT_EQ(contents(first), numbers(0, 128));
    EXPECT_EQ(pool_.allocated_bytes(), before) << "opened where it is, and sealed again";
}

TEST_F(Sealed, WhatWasReservedAndNotUsedIsGivenBack) {
    SequenceCache cache(pool_);
    cache.reserve(128);
    append(cache, numbers(0, 3), 1);
    EXPECT_EQ(contents(cache), numbers(0, 3));
    EXPECT_EQ(pool_.pages() - pool_.free_pages(), 1);
    cache = SequenceCache(pool_);
    EXPECT_EQ(pool_.allocated_bytes(), 0u);
}

/// Random appends, forks, truncations and deaths against plain vectors.
class RandomWalk {
public:
    explicit RandomWalk(PagePool& pool) { sequences_.emplace_back(SequenceCache(pool), std::vector<float>{}); }

    void step() {
        auto& [cache, values] = sequences_[random_.below(sequences_.size())];
        switch (random_.below(4)) {
            case 0: return fork(cache, values);
            case 1: return truncate(cache, values);
            case 2: return die();
            default: return extend(cache, values);
        }
    }

    void check() const {
        for (const auto& [cache, values] : sequences_) ASSERT_EQ(contents(cache), values);
    }

private:
    void fork(const SequenceCache& cache, std::vector<float> values) {
        if (sequences_.size() < 6) sequences_.emplace_back(cache.fork(), std::move(values));
    }
    void truncate(SequenceCache& cache, std::vector<float>& values) {
        values.resize(random_.below(values.size() + 1));
        cache.truncate(static_cast<std::int64_t>(values.size()));
    }
    void die() {
        if (sequences_.size() > 1) sequences_.erase(sequences_.begin());
    }
    void extend(SequenceCache& cache, std::vector<float>& values) {
        const auto more = numbers(next_, static_cast<int>(random_.below(90)));
        next_ += 100;
        if (cache.room() < static_cast<std::int64_t>(more.size())) {
            EXPECT_THROW(append(cache, more), core::Error);
            return;
        }
        append(cache, more);
        values.insert(values.end(), more.begin(), more.end());
    }

    core::Random random_{7};
    std::vector<std::pair<SequenceCache, std::vector<float>>> sequences_;
    float next_ = 1;
};

TEST(SequenceCache, RandomHistoriesNeverMixSequences) {
    PagePool pool(two_layers(), 12 * page_tokens);
    {
        RandomWalk walk(pool);
        for (int step = 0; step < 400; ++step) {
            walk.step();
            walk.check();
        }
    }
    EXPECT_EQ(pool.allocated_bytes(), 0u) << "every reference was given back";
    EXPECT_EQ(pool.used_bytes(), 0u);
}

}  // namespace
}  // namespace mha2mla::cache
