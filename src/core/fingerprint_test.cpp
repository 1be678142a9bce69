#include "core/fingerprint.h"

#include <gtest/gtest.h>
#include <string_view>

namespace mha2mla::core {
namespace {

std::string fingerprint_of(std::string_view text) {
    Fingerprint fingerprint;
    fingerprint.add(std::as_bytes(std::span(text)));
    return fingerprint.hex();
}

/// The test vectors that the authors of FNV publish.
TEST(Fingerprint, IsFnv1a) {
    EXPECT_EQ(fingerprint_of(""), "cbf29ce484222325");
    EXPECT_EQ(fingerprint_of("a"), "af63dc4c8601ec8c");
    EXPECT_EQ(fingerprint_of("foobar"), "85944171f73967e8");
}

TEST(Fingerprint, ANumberIsItsBytesLowestFirst) {
    Fingerprint numbers;
    numbers.add(std::uint32_t{0x6f6f66});  // "foo", then a zero
    numbers.add(std::uint8_t{'b'});
    EXPECT_EQ(numbers.hex(), fingerprint_of(std::string_view("foo\0b", 5)));
}

}  // namespace
}  // namespace mha2mla::core
