#include "cache/page_codec.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/kernels.h"

namespace mha2mla::cache {
namespace {

constexpr auto tokens = static_cast<std::size_t>(page_tokens);

/// A page of random bf16 rows, some channels larger than others.
std::vector<core::bf16> random_page(const PageFormat& format, std::uint64_t seed) {
    core::Random random(seed);
    std::vector<core::bf16> page(format.page_bytes() / sizeof(core::bf16));
    for (std::size_t i = 0; i < page.size(); ++i) {
        const double size = i % 7 == 0 ? 10 : 1;
        page[i] = core::to_bf16(static_cast<float>(size * (2 * random.uniform() - 1)));
    }
    return page;
}

std::vector<std::byte> seal(const PageFormat& format, const std::vector<core::bf16>& page) {
    std::vector<std::byte> sealed(format.full_page_bytes(), std::byte{0xff});
    seal_page(format, reinterpret_cast<const std::byte*>(page.data()), sealed.data());
    return sealed;
}

float exact(const PageFormat& format, const std::vector<core::bf16>& page, const SealedPlane& part, std::size_t token,
            std::size_t column) {
    const Plane& plane = format.planes[static_cast<std::size_t>(part.plane)];
    const std::size_t at = (plane.offset_bytes + token * plane.row_bytes) / sizeof(core::bf16);
    return core::to_float(page[at + static_cast<std::size_t>(part.first_column) + column]);
}

/// The part as the quantizer gives it back, [tokens, width].
std::vector<float> expected_rows(const PageFormat& format, const std::vector<core::bf16>& page,
                                 const SealedPlane& part) {
    const auto width = static_cast<std::size_t>(part.width);
    std::vector<float> rows(tokens * width);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = exact(format, page, part, i / width, i % width);
    if (!part.rows.codes) return rows;
    const std::size_t lines = part.rows.by_channel ? width : tokens;
    const std::size_t length = rows.size() / lines;
    const auto at = [&](std::size_t line, std::size_t i) {
        return part.rows.by_channel ? i * width + line : line * width + i;
    };
    for (std::size_t line = 0; line < lines; ++line) {
        std::vector<float> values(length);
        std::vector<std::uint8_t> codes(length);
        std::vector<GroupScale> scales(part.rows.codes->groups(length));
        for (std::size_t i = 0; i < length; ++i) values[i] = rows[at(line, i)];
        quantize_row(*part.rows.codes, values, codes, scales);
        dequantize_row(*part.rows.codes, codes, scales, values);
        for (std::size_t i = 0; i < length; ++i) rows[at(line, i)] = values[i];
    }
    return rows;
}

class PageCodec : public testing::TestWithParam<std::string> {
protected:
    std::vector<PageFormat> formats() const {
        const CacheFormat cache = parse_cache_format(GetParam(), "test");
        return {latent_format(cache, 96, 24),       latent_format(cache, 118, 2),
                latent_format(cache, 33, 0),        latent_format(cache, 90, 12, 3),
                grouped_query_format(cache, 2, 64), grouped_query_format(cache, 1, 10)};
    }
};

TEST_P(PageCodec, KernelsReadASealedPageAsTheQuantizerGivesItBack) {
    for (const PageFormat& format : formats()) {
        const auto page = random_page(format, 1);
        const auto sealed = seal(format, page);
        for (const SealedPlane& part : format.sealed) {
            const auto rows = format.sealed_format(part.plane, part.plane);
            const std::int64_t first = rows.keys[0].width;
            const std::int64_t stride = first + rows.keys[1].width + kernels::group_unit;
            std::vector<float> loaded(tokens * static_cast<std::size_t>(stride));
            kernels::kernels().load_rows({.block = sealed.data() + format.sealed_start(part.plane),
                                          .parts = {rows.keys[0], rows.keys[1]},
                                          .rows = page_tokens,
                                          .y = loaded.data(),
                                          .y_stride = stride});
            const auto expected = expected_rows(format, page, part);
            const auto width = static_cast<std::size_t>(part.width);
            for (std::size_t i = 0; i < expected.size(); ++i) {
                const std::size_t column = static_cast<std::size_t>(part.first_column) + i % width;
                ASSERT_EQ(loaded[i / width * static_cast<std::size_t>(stride) + column], expected[i])
                    << "token " << i / width << " column " << column;
            }
        }
    }
}

TEST_P(PageCodec, RowsComeBackRoundedAndTheOthersStay) {
    for (const PageFormat& format : formats()) {
        const auto page = random_page(format, 2);
        const auto sealed = seal(format, page);
        std::vector<core::bf16> opened(page.size(), core::to_bf16(-77));
        unseal_rows(format, sealed.data(), 5, reinterpret_cast<std::byte*>(opened.data()));
        for (const SealedPlane& part : format.sealed) {
            const auto expected = expected_rows(format, page, part);
            const auto width = static_cast<std::size_t>(part.width);
            for (std::size_t i = 0; i < expected.size(); ++i) {
                const float wanted = i / width < 5 ? core::to_float(core::to_bf16(expected[i])) : -77;
                ASSERT_EQ(exact(format, opened, part, i / width, i % width), wanted);
            }
        }
    }
}

TEST_P(PageCodec, BytesFollowTheFormula) {
    const CacheFormat cache = parse_cache_format(GetParam(), "test");
    EXPECT_EQ(latent_format(cache, 128, 64).full_page_bytes(),
              tokens * (cache.content.row_bytes(128) + cache.rotary.row_bytes(64)));
    EXPECT_EQ(grouped_query_format(cache, 3, 64).full_page_bytes(),
              tokens * 3 * (cache.keys.row_bytes(64) + cache.content.row_bytes(64)));
}

INSTANTIATE_TEST_SUITE_P(Formats, PageCodec,
                         testing::Values("int8", "int4", "int2", "int4-g64", "int8-g8", "int4-c", "int2-c", "kivi4",
                                         "kivi2", "latent=int4,rope=bf16", "latent=bf16,rope=int4-c",
                                         "latent=int2-c,rope=int8"),
                         [](const auto& format) {
                             std::string name = format.param;
                             std::replace_if(
                                 name.begin(), name.end(), [](char c) { return c == '-' || c == '=' || c == ','; },
                                 '_');
                             return name;
                         });

}  // namespace
}  // namespace mha2mla::cache
