#include "data/gzip.h"

#include <zlib.h>

#include <gtest/gtest.h>

#include "core/error.h"

namespace mha2mla::data {
namespace {

/// What `gzip` writes.
std::string gzip(const std::string& text) {
    z_stream stream = {};
    EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    std::string bytes(text.size() + 100, '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(bytes.data());
    stream.avail_out = static_cast<uInt>(bytes.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    bytes.resize(bytes.size() - stream.avail_out);
    deflateEnd(&stream);
    return bytes;
}

std::string long_text() {
    std::string text;
    for (int i = 0; i < 200'000; ++i) text += std::to_string(i * 7919 % 100'003);
    return text;
}

TEST(Gunzip, GivesBackEveryMember) {
    EXPECT_EQ(gunzip(gzip("one\n") + gzip("") + gzip("two\n"), "x.gz"), "one\ntwo\n");
    EXPECT_EQ(gunzip(gzip(long_text()), "x.gz"), long_text()) << "larger than a piece";
    const std::string zeros(1 << 20, '0');
    EXPECT_EQ(gunzip(gzip(zeros), "x.gz"), zeros) << "few bytes stand for many pieces";
}

TEST(Gunzip, RefusesWhatIsCutOffDamagedOrTooLarge) {
    const std::string whole = gzip(long_text());
    for (const std::size_t size : {std::size_t{1}, std::size_t{9}, whole.size() / 2, whole.size() - 1}) {
        EXPECT_THROW(gunzip(whole.substr(0, size), "x.gz"), core::Error) << size;
    }
    std::string damaged = whole;
    damaged[whole.size() / 2] = static_cast<char>(damaged[whole.size() / 2] ^ 0x55);
    EXPECT_THROW(gunzip(damaged, "x.gz"), core::Error);
    EXPECT_THROW(gunzip("plain text", "x.gz"), core::Error);
    EXPECT_THROW(gunzip(gzip(std::string(1001, 'a')), "x.gz", 1000), core::Error);
    EXPECT_EQ(gunzip(gzip(std::string(1000, 'a')), "x.gz", 1000).size(), 1000u);
}

}  // namespace
}  // namespace mha2mla::data
