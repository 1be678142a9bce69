#include "core/error.h"

#include <gtest/gtest.h>

namespace mha2mla::core {
namespace {

TEST(Error, SaysEverythingInOneSentence) {
    const Error error({.what = "tensor 'x' has the wrong shape",
                       .expected = "[2, 3]",
                       .got = "[3, 2]",
                       .where = "model.safetensors",
                       .remedy = "fetch it again"});
    EXPECT_STREQ(error.what(),
                 "model.safetensors: tensor 'x' has the wrong shape, expected [2, 3], got [3, 2]; fetch it again");
    EXPECT_EQ(error.info().got, "[3, 2]");
}

TEST(Error, LeavesOutWhatIsEmpty) {
    EXPECT_STREQ(Error({.what = "no such file"}).what(), "no such file");
    EXPECT_STREQ(Error({.what = "no such file", .where = "a"}).what(), "a: no such file");
    EXPECT_STREQ(Error({.what = "too small", .remedy = "use more"}).what(), "too small; use more");
}

TEST(Error, IsOneLineWhateverItNames) {
    EXPECT_STREQ(Error({.what = "tensor 'a\nb\x1b[31m' is unknown"}).what(), "tensor 'a\\x0ab\\x1b[31m' is unknown");
}

TEST(Invariant, NamesThePromiseAndTheLine) {
    EXPECT_NO_THROW(invariant(true, "all is well"));
    try {
        invariant(false, "two is three");
        FAIL() << "a broken promise went unnoticed";
    } catch (const std::logic_error& error) {
        EXPECT_NE(std::string(error.what()).find("error_test.cpp"), std::string::npos);
        EXPECT_NE(std::string(error.what()).find("two is three"), std::string::npos);
    }
}

}  // namespace
}  // namespace mha2mla::core
