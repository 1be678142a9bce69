#include "cache/cache_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace mha2mla::cache {
namespace {

TEST(CacheFormat, NamesAreRead) {
    EXPECT_EQ(parse_cache_format("bf16", ""), plain_format(core::DType::bf16));
    for (const int bits : {8, 4, 2}) {
        const auto format = parse_cache_format("int" + std::to_string(bits), "");
        EXPECT_EQ(format.content.codes, (GroupFormat{.bits = bits, .group_elements = 32}));
        EXPECT_EQ(format.rotary.codes, (GroupFormat{.bits = 8, .group_elements = 32})) << "rotary keys keep 8 bits";
    }
    const auto wide = parse_cache_format("int4-g64", "");
    EXPECT_EQ(wide.content.codes, (GroupFormat{.bits = 4, .group_elements = 64}));
    EXPECT_EQ(wide.rotary.codes, (GroupFormat{.bits = 8, .group_elements = 64}));
}

TEST(CacheFormat, PartsAreNamedSeparately) {
    const auto latent = parse_cache_format("latent=int4-g64,rope=int8", "");
    EXPECT_EQ(latent.content, parse_cache_format("int4-g64", "").content);
    EXPECT_EQ(latent.rotary, parse_cache_format("int8", "").rotary);
    EXPECT_EQ(parse_cache_format("latent=bf16,rope=int4", "").content, plain_format(core::DType::bf16).content);
    const auto keys = parse_cache_format("keys=int2-c,values=int4", "");
    EXPECT_TRUE(keys.keys.by_channel);
    EXPECT_EQ(keys.keys.codes, (GroupFormat{.bits = 2, .group_elements = 64})) << "a channel in all tokens of a page";
    EXPECT_EQ(keys.content, parse_cache_format("int4", "").content);
    EXPECT_EQ(parse_cache_format("kivi4", ""), parse_cache_format("keys=int4-c,values=int4", ""));
}

TEST(CacheFormat, NamesComeBack) {
    for (const std::string name :
         {"bf16", "f32", "int8", "int4", "int2", "int4-g64", "int2-g1", "int4-c", "kivi2", "kivi4",
          "latent=int4,rope=bf16", "latent=int2-c,rope=int8-g16", "keys=int8,values=int4", "keys=int4-c,values=int2"}) {
        EXPECT_EQ(name_of(parse_cache_format(name, "")), name);
    }
    EXPECT_EQ(name_of(plain_format(core::DType::f32)), "f32");
    EXPECT_EQ(name_of(parse_cache_format("latent=int4,rope=int8", "")), "int4");
}

TEST(CacheFormat, AnythingElseIsRefusedNamingTheOption) {
    for (const std::string name : {"",
                                   "int",
                                   "int3",
                                   "int16",
                                   "fp8",
                                   "f16",
                                   "BF16",
                                   "int4-g",
                                   "int4-g0",
                                   "int4-g-1",
                                   "int4-g1025",
                                   "int4-g64x",
                                   "int4-64",
                                   "int4 ",
                                   "int4-g99999999999",
                                   "int4-c4",
                                   "kivi",
                                   "kivi3",
                                   "latent=int4",
                                   "latent=int4,values=int8",
                                   "latent=,rope=int8",
                                   "latent=f32,rope=int8",
                                   "rope=int8,latent=int4",
                                   "latent=int4,rope=int8,"}) {
        try {
            parse_cache_format(name, "--emulate-cache");
            ADD_FAILURE() << name << " was accepted";
        } catch (const core::Error& error) {
            EXPECT_THAT(error.what(),
                        testing::AllOf(testing::HasSubstr("--emulate-cache"), testing::HasSubstr("int4-g64")));
        }
    }
}

TEST(CacheFormat, BytesOfARowOfNumbersAndOfCodes) {
    EXPECT_EQ(plain_format(core::DType::bf16).content.row_bytes(120), 240u);
    EXPECT_EQ(plain_format(core::DType::f32).rotary.row_bytes(3), 12u);
    EXPECT_EQ(parse_cache_format("int4", "").content.row_bytes(118), 59u + 16);
    EXPECT_EQ(parse_cache_format("int4", "").rotary.row_bytes(2), 2u + 4);
    EXPECT_EQ(parse_cache_format("int4-c", "").content.row_bytes(118), 59u + 8) << "4 bytes a channel and 64 tokens";
}

TEST(CacheFormat, AppliesToCachesThatHaveItsParts) {
    const auto applies = [](const char* name, bool has_latents) {
        try {
            check_applies(parse_cache_format(name, "test"), has_latents, "test");
        } catch (const core::Error&) {
            return false;
        }
        return true;
    };
    for (const char* name : {"bf16", "f32", "int8", "int4", "int4-g64", "int4-c"}) {
        EXPECT_TRUE(applies(name, true) && applies(name, false)) << name;
    }
    EXPECT_TRUE(applies("latent=int4,rope=int4", true));
    EXPECT_FALSE(applies("latent=int4,rope=int4", false));
    EXPECT_TRUE(applies("kivi4", false));
    EXPECT_FALSE(applies("kivi4", true));
}

}  // namespace
}  // namespace mha2mla::cache
