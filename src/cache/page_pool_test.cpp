#include "cache/page_pool.h"

#include <cstdint>
#include <gtest/gtest.h>
#include <set>

#include "core/error.h"

namespace mha2mla::cache {
namespace {

using core::DType;

TEST(PageFormat, GroupedQueryPageHoldsKeysAndValuesOfEachHead) {
    const PageFormat format = grouped_query_format(DType::bf16, 3, 64);
    EXPECT_EQ(format.bytes_per_token(), 2u * 3 * 64 * 2);
    EXPECT_EQ(format.page_bytes(), 64u * 2 * 3 * 64 * 2);
    ASSERT_EQ(format.planes.size(), 6u);
    const Plane& plane = format.planes[static_cast<std::size_t>(value_plane(1))];
    EXPECT_EQ(plane.offset_bytes, 3u * 64 * 64 * 2);
    EXPECT_EQ(plane.row_bytes, 128u);
}

TEST(PageFormat, LatentPageHoldsOneRowAToken) {
    EXPECT_EQ(latent_format(DType::bf16, 96, 24).bytes_per_token(), 240u);
    EXPECT_EQ(latent_format(DType::f32, 17, 6).page_bytes(), 64u * 23 * 4);
}

TEST(PageFormat, ASealedLatentPageKeepsLatentAndRotaryKeysApart) {
    const PageFormat format = latent_format(parse_cache_format("int4", ""), 118, 2);
    EXPECT_EQ(format.page_bytes(), 64u * 120 * 2) << "as it is written";
    EXPECT_EQ(format.full_page_bytes(), 64u * (59 + 16 + 2 + 4));
    const kernels::SealedFormat sealed = format.sealed_format(latent_plane(), latent_plane());
    EXPECT_EQ(sealed.keys[0].bits, 4);
    EXPECT_EQ(sealed.keys[0].width, 118);
    EXPECT_EQ(sealed.keys[0].row_bytes, 59);
    EXPECT_EQ(sealed.keys[0].scales_offset_bytes, 64 * 59);
    EXPECT_EQ(sealed.keys[1].bits, 8);
    EXPECT_EQ(sealed.keys[1].width, 2);
    EXPECT_EQ(sealed.keys[1].offset_bytes, 64 * (59 + 16));
    EXPECT_EQ(sealed.values.width, 118);
    EXPECT_EQ(sealed.values.offset_bytes, 0);
}

TEST(PageFormat, LatentGroupsLieOneBehindTheOtherAndAreAlike) {
    const PageFormat format = latent_format(parse_cache_format("int4-c", ""), 80, 24, 2);
    const PageFormat one = latent_format(parse_cache_format("int4-c", ""), 40, 12);
    ASSERT_EQ(format.planes.size(), 2u);
    EXPECT_EQ(format.full_page_bytes(), 2 * one.full_page_bytes());
    EXPECT_EQ(format.planes[1].offset_bytes, one.page_bytes());
    EXPECT_EQ(format.sealed_start(latent_plane(1)), one.full_page_bytes());
    for (const int group : {0, 1}) {
        const kernels::SealedFormat sealed = format.sealed_format(latent_plane(group), latent_plane(group));
        EXPECT_EQ(sealed.keys[0].width, 40);
        EXPECT_EQ(sealed.keys[0].offset_bytes, 0);
        EXPECT_EQ(sealed.keys[1].width, 12);
        EXPECT_EQ(sealed.keys[1].offset_bytes, 64 * 20 + 40 * 4) << "codes and scales of the channels before";
    }
}

TEST(PageFormat, SealedPlanesOfAHeadStartWhereItsRowsDo) {
    const PageFormat format = grouped_query_format(parse_cache_format("kivi4", ""), 2, 64);
    const std::size_t keys = 64 * 32 + 64 * 4;  // a scale a channel
    const std::size_t values = 64 * (32 + 8);   // two a token
    EXPECT_EQ(format.full_page_bytes(), 2 * (keys + values));
    EXPECT_EQ(format.sealed_start(value_plane(1)), 2 * keys + values);
    const kernels::SealedFormat sealed = format.sealed_format(key_plane(1), value_plane(1));
    EXPECT_EQ(sealed.keys[0].offset_bytes, 0);
    EXPECT_EQ(sealed.keys[0].group, 0);
    EXPECT_EQ(sealed.keys[1].width, 0);
    EXPECT_EQ(sealed.values.group, 32);
    EXPECT_EQ(sealed.values.scales_offset_bytes, 64 * 32);
}

TEST(PageFormat, WithoutCodesAFullPageStaysAsItIs) {
    const PageFormat format = latent_format(parse_cache_format("bf16", ""), 96, 24);
    EXPECT_FALSE(format.seals());
    EXPECT_EQ(format.full_page_bytes(), format.page_bytes());
}

TEST(PagePool, RowsOfAllPlanesPagesAndLayersAreDisjoint) {
    const PagePool pool({grouped_query_format(DType::bf16, 2, 4), latent_format(DType::f32, 5, 2)}, 100);
    EXPECT_EQ(pool.pages(), 2);
    std::set<const std::byte*> covered;
    std::size_t bytes = 0;
    for (int layer = 0; layer < pool.layers(); ++layer) {
        const auto& planes = pool.format(layer).planes;
        for (std::size_t plane = 0; plane < planes.size(); ++plane) {
            for (PageId page = 0; page < pool.pages(); ++page) {
                for (std::int64_t row = 0; row < page_tokens; ++row) {
                    const std::byte* first = pool.row(layer, static_cast<int>(plane), page, row);
                    for (std::size_t i = 0; i < planes[plane].row_bytes; ++i) covered.insert(first + i);
                    bytes += planes[plane].row_bytes;
                }
            }
        }
    }
    EXPECT_EQ(covered.size(), bytes);
    EXPECT_EQ(bytes, pool.capacity_bytes());
    EXPECT_EQ(static_cast<std::size_t>(*covered.rbegin() - *covered.begin()) + 1, bytes);
}

TEST(PagePool, GivesEveryPageOnceThenNamesTheOption) {
    PagePool pool({latent_format(DType::bf16, 8, 4)}, 3 * page_tokens);
    std::set<PageId> pages;
    for (int i = 0; i < 3; ++i) pages.insert(pool.allocate());
    EXPECT_EQ(pages.size(), 3u);
    try {
        pool.allocate();
        FAIL() << "a full pool gave a page";
    } catch (const core::Error& error) {
        EXPECT_NE(std::string(error.what()).find("--context"), std::string::npos) << error.what();
    }
}

TEST(PagePool, ExactRowsTakeMemoryUntilAPageIsClosed) {
    PagePool pool(
        {latent_format(parse_cache_format("int4", ""), 64, 8), latent_format(parse_cache_format("int4", ""), 32, 8)},
        4 * page_tokens);
    const std::size_t sealed = 64 * (32 + 8 + 12 + 16 + 4 + 12);
    const std::size_t open = 64 * 2 * (72 + 40);
    const std::size_t staged = 64 * 2 * 72;  // the larger layer
    EXPECT_EQ(pool.page_bytes(), sealed);
    EXPECT_EQ(pool.capacity_bytes(), 4 * sealed);
    const PageId first = pool.allocate(Writing::token_by_token);
    EXPECT_EQ(pool.allocated_bytes(), sealed + open);
    const PageId second = pool.allocate(Writing::layer_by_layer);
    EXPECT_EQ(pool.allocated_bytes(), 2 * sealed + open + staged);
    EXPECT_FALSE(pool.is_sealed(second));
    EXPECT_EQ(pool.row(0, 0, second, 3), pool.row(1, 0, second, 0) + 3 * 144)
        << "layers follow each other in one place";
    pool.close(second);
    EXPECT_TRUE(pool.is_sealed(second));
    EXPECT_EQ(pool.allocated_bytes(second), sealed);
    pool.release(first);
    pool.release(second);
    EXPECT_EQ(pool.allocated_bytes(), 0u);
    EXPECT_FALSE(pool.is_sealed(pool.allocate()));
}

TEST(PagePool, APageIsFreeAfterItsLastReference) {
    PagePool pool({latent_format(DType::bf16, 8, 4)}, 2 * page_tokens);
    const PageId page = pool.allocate();
    pool.retain(page);
    EXPECT_TRUE(pool.is_shared(page));
    pool.release(page);
    EXPECT_FALSE(pool.is_shared(page));
    EXPECT_EQ(pool.free_pages(), 1);
    EXPECT_EQ(pool.allocated_bytes(), pool.page_bytes());
    pool.release(page);
    EXPECT_EQ(pool.free_pages(), 2);
    EXPECT_EQ(pool.allocated_bytes(), 0u);
    EXPECT_THROW(pool.release(page), std::logic_error);
    EXPECT_THROW(pool.retain(page), std::logic_error);
}

}  // namespace
}  // namespace mha2mla::cache
