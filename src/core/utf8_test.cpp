#include "core/utf8.h"

#include <gtest/gtest.h>

namespace mha2mla::core {
namespace {

TEST(Utf8, EveryCodePointSurvivesWritingAndReading) {
    for (char32_t code_point = 0; code_point < 0x110000; ++code_point) {
        if (code_point >= 0xd800 && code_point < 0xe000) continue;
        std::string text;
        append_utf8(code_point, text);
        const auto step = read_utf8(text);
        ASSERT_EQ(step.kind, Utf8Step::Kind::code_point) << static_cast<unsigned>(code_point);
        ASSERT_EQ(step.value, code_point);
        ASSERT_EQ(step.bytes, text.size());
    }
}

TEST(Utf8, RefusesSurrogatesOverlongFormsAndTooLargeValues) {
    for (const std::string bad : {"\xed\xa0\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xf0\x80\x80\x80",
                                  "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\x80"}) {
        EXPECT_EQ(read_utf8(bad).kind, Utf8Step::Kind::invalid);
        EXPECT_EQ(valid_utf8_prefix("ok" + bad), 2u);
    }
}

TEST(Utf8, TellsTheBeginningOfACodePointFromAnError) {
    const std::string llama = "\xf0\x9f\xa6\x99";
    for (std::size_t size = 1; size < llama.size(); ++size) {
        const auto step = read_utf8(llama.substr(0, size));
        EXPECT_EQ(step.kind, Utf8Step::Kind::incomplete);
        EXPECT_EQ(step.bytes, size);
    }
    EXPECT_EQ(read_utf8("\xf0\x9fx").kind, Utf8Step::Kind::invalid);
}

// Expected: bytes.decode("utf-8", errors="replace") of Python.
TEST(Utf8, ReplacesAsPythonDoes) {
    const std::string mark = "\xef\xbf\xbd";
    EXPECT_EQ(replace_invalid_utf8("caf\xc3\xa9"), "caf\xc3\xa9");
    EXPECT_EQ(replace_invalid_utf8("a\xff\xfe"
                                   "b"),
              "a" + mark + mark + "b");
    EXPECT_EQ(replace_invalid_utf8("\xf0\x9f\xa6"), mark);
    EXPECT_EQ(replace_invalid_utf8("\xf0\x9f\xa6z"), mark + "z");
    EXPECT_EQ(replace_invalid_utf8("\xed\xa0\x80"), mark + mark + mark);
}

}  // namespace
}  // namespace mha2mla::core
