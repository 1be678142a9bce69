#include "checkpoint/gguf_file.h"

#include <gmock/gmock.h>
#include <limits>

#include "checkpoint/gguf_test_file.h"
#include "checkpoint/test_support.h"

namespace mha2mla::checkpoint {
namespace {

using test::bytes_of;
using test::error_of;
using test::gguf_string;
using test::GgufFileWriter;
using test::raw;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint32_t f32_type = 0;
constexpr std::uint32_t q4_0_type = 2;
constexpr std::uint32_t iq4_xs_type = 23;

std::string parse_error(const std::string& file) {
    return error_of([&] { parse_gguf(bytes_of(file), "model.gguf"); });
}

/// Two small tensors and a few values.
GgufFileWriter sample() {
    GgufFileWriter writer;
    writer.u32("count", 7).string("name", "sample");
    writer.floats("a", {2, 3}, {1, 2, 3, 4, 5, 6}).tensor("b", {32}, q4_0_type, std::string(18, '\0'));
    return writer;
}

TEST(GgufFile, PlacesTensorsInTheFile) {
    const auto bytes = sample().bytes();
    const auto file = parse_gguf(bytes_of(bytes), "model.gguf");
    ASSERT_EQ(file.tensors.size(), 2u);
    const auto& a = *file.find("a");
    EXPECT_THAT(a.shape, ElementsAre(3, 2));
    EXPECT_STREQ(a.type->name, "F32");
    ASSERT_EQ(a.data.size(), 24u);
    EXPECT_EQ(load<float>(a.data.data() + 20), 6.0f);
    EXPECT_EQ(file.find("b")->data.size(), 18u);
    EXPECT_EQ(file.find("b")->row_bytes(), 18u);
    EXPECT_EQ(file.find("c"), nullptr);
}

TEST(GgufFile, ReadsVersion2AndOtherAlignments) {
    GgufFileWriter writer;
    writer.version = 2;
    writer.alignment = 256;
    writer.u32("general.alignment", 256).floats("a", {1}, {1}).floats("b", {1}, {2});
    const auto bytes = writer.bytes();
    const auto file = parse_gguf(bytes_of(bytes), "model.gguf");
    EXPECT_EQ(load<float>(file.find("b")->data.data()), 2.0f);
}

TEST(GgufFile, EveryTruncationIsAnErrorAndNothingElse) {
    const auto bytes = sample().bytes();
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        EXPECT_NE(parse_error(bytes.substr(0, size)), "") << size << " of " << bytes.size() << " bytes";
    }
    EXPECT_EQ(parse_error(bytes), "");
}

struct BrokenFile {
    std::string bytes;
    const char* message;
};

std::vector<BrokenFile> broken_headers() {
    auto big_endian = sample();
    big_endian.version = 3u << 24;
    auto first = sample();
    first.version = 1;
    auto tensors = sample();
    tensors.extra_tensors = std::uint64_t{1} << 60;
    auto pairs = sample();
    pairs.extra_pairs = std::uint64_t{1} << 62;
    constexpr auto huge = std::numeric_limits<std::uint64_t>::max();
    const auto type = [](std::uint32_t number) { return static_cast<GgufType>(number); };
    const auto nested = raw(GgufType::array) + raw(std::uint64_t{1});
    return {
        {"", "the header ends too early"},
        {"PK\3\4 and more", "not a GGUF file"},
        {big_endian.bytes(), "big-endian GGUF files are not supported"},
        {first.bytes(), "GGUF version 1 is not supported, expected little-endian version 2 or 3"},
        {tensors.bytes(), "the header claims 1152921504606846978 tensors where"},
        {pairs.bytes(), "metadata pairs where"},
        {sample().pair("k", GgufType::string, raw(huge)).bytes(), "18446744073709551615 bytes wanted"},
        {sample().array("k", GgufType::u64, huge / 8, "").bytes(), "items of 'k' where"},
        {sample().array("k", GgufType::string, 1000, "").bytes(), "the header claims 1000 items of 'k'"},
        {sample().pair("k", type(13), "").bytes(), "metadata key 'k' has the unknown type 13"},
        {sample().array("k", type(77), 1, "").bytes(), "metadata key 'k' has the unknown type 77"},
        {sample().pair("k", GgufType::array, nested + nested + nested + nested + nested).bytes(), "nested too deeply"},
        {sample().u32("count", 8).bytes(), "metadata key 'count' appears twice"},
        {sample().u32("general.alignment", 24).bytes(), "'general.alignment' is not usable, expected a power of two"},
        {sample().string("general.alignment", "32").bytes(), "'general.alignment' is not usable, expected an integer"},
    };
}

std::vector<BrokenFile> broken_tensors() {
    constexpr auto huge = std::numeric_limits<std::uint64_t>::max();
    return {
        {sample().info("c", {}, f32_type, 0).bytes(), "tensor 'c' has 0 dimensions"},
        {sample().info("c", {1, 1, 1, 1, 1}, f32_type, 0).bytes(), "tensor 'c' has 5 dimensions"},
        {sample().info("c", {huge, huge}, f32_type, 0).bytes(), "extent of 18446744073709551615"},
        {sample().info("c", {1u << 30, 1u << 30}, f32_type, 0).bytes(), "tensor 'c' has an extent of 1073741824"},
        {sample().info("c", {4, 0}, f32_type, 0).bytes(), "tensor 'c' has an extent of 0"},
        {sample().info("c", {256}, iq4_xs_type, 0).bytes(), "tensor 'c' has type IQ4_XS, which is not supported"},
        {sample().info("c", {256}, 4711, 0).bytes(), "tensor 'c' has type number 4711"},
        {sample().info("c", {48}, q4_0_type, 0).bytes(), "48 elements, no multiple of Q4_0's block of 32"},
        {sample().info("c", {1}, f32_type, 4).bytes(), "tensor 'c' begins at offset 4, no multiple of 32"},
        {sample().info("c", {1}, f32_type, 96).bytes(), "tensor 'c' ends beyond the end of the file"},
        {sample().info("c", {1}, f32_type, huge - 31).bytes(), "tensor 'c' ends beyond the end of the file"},
        {sample().info("c", {1u << 20}, f32_type, 0).bytes(), "tensor 'c' ends beyond the end of the file"},
        {sample().info("c", {1}, f32_type, 32).bytes(), "overlap"},
        {sample().floats("a", {1}, {1}).bytes(), "tensor 'a' appears twice"},
        {sample().info("\x1b[2J", {1, 1, 1, 1, 1}, f32_type, 0).bytes(), "tensor '?[2J' has 5 dimensions"},
    };
}

TEST(GgufFile, NamesWhatIsBroken) {
    auto cases = broken_headers();
    for (auto& broken : broken_tensors()) cases.push_back(std::move(broken));
    for (const auto& broken : cases) {
        EXPECT_THAT(parse_error(broken.bytes), AllOf(HasSubstr("model.gguf: "), HasSubstr(broken.message)));
    }
}

class GgufValues : public ::testing::Test {
protected:
    GgufMetadata parse(const GgufFileWriter& writer) {
        bytes_ = writer.bytes();
        return parse_gguf(bytes_of(bytes_), "model.gguf").metadata;
    }

private:
    std::string bytes_;
};

TEST_F(GgufValues, IntegersOfEveryType) {
    GgufFileWriter writer;
    writer.pair("u8", GgufType::u8, raw(std::uint8_t{200})).pair("i8", GgufType::i8, raw(std::int8_t{-3}));
    writer.pair("u16", GgufType::u16, raw(std::uint16_t{60000})).pair("i16", GgufType::i16, raw(std::int16_t{-300}));
    writer.u32("u32", 4000000000).pair("i32", GgufType::i32, raw(std::int32_t{-70000}));
    writer.pair("u64", GgufType::u64, raw(std::uint64_t{1} << 40)).pair("i64", GgufType::i64, raw(std::int64_t{-5}));
    writer.pair("beyond", GgufType::u64, raw(std::numeric_limits<std::uint64_t>::max()));
    const auto values = parse(writer);
    const auto read = [&](const char* key) { return values.integer(key, INT64_MIN, INT64_MAX); };
    EXPECT_EQ(read("u8"), 200);
    EXPECT_EQ(read("i8"), -3);
    EXPECT_EQ(read("u16"), 60000);
    EXPECT_EQ(read("i16"), -300);
    EXPECT_EQ(read("u32"), 4000000000);
    EXPECT_EQ(read("i32"), -70000);
    EXPECT_EQ(read("u64"), std::int64_t{1} << 40);
    EXPECT_EQ(read("i64"), -5);
    EXPECT_NE(error_of([&] { read("beyond"); }), "");
    EXPECT_EQ(error_of([&] { values.integer("u8", 0, 100); }),
              "model.gguf: metadata key 'u8' is not usable, expected an integer from 0 to 100, got 200");
}

TEST_F(GgufValues, NumbersStringsAndArrays) {
    GgufFileWriter writer;
    writer.f32("f32", 1e-5f).pair("f64", GgufType::f64, raw(0.1)).f32("nan", std::nanf("")).boolean("yes", true);
    writer.strings("names", {"a", "", "ccc"}).numbers<float>("scores", GgufType::f32, {-1, 0.1f});
    writer.numbers<std::int32_t>("types", GgufType::i32, {1, 6});
    const auto inner = raw(GgufType::u8) + raw(std::uint64_t{2}) + "xy";
    writer.array("nested", GgufType::array, 2, inner + inner).string("text", "last");
    const auto values = parse(writer);
    EXPECT_EQ(values.number("f32"), 1e-5) << "the decimal, not the float's own value";
    EXPECT_EQ(values.number("f64"), 0.1);
    EXPECT_TRUE(values.boolean("yes"));
    EXPECT_THAT(values.strings("names"), ElementsAre("a", "", "ccc"));
    EXPECT_THAT(values.numbers("scores"), ElementsAre(-1, 0.1));
    EXPECT_THAT(values.integers("types", 1, 6), ElementsAre(1, 6));
    EXPECT_EQ(values.string("text"), "last") << "behind the nested array";
    EXPECT_THAT(error_of([&] { values.number("nan"); }), HasSubstr("'nan' is not usable, expected a finite"));
    EXPECT_THAT(error_of([&] { values.integers("types", 1, 5); }), HasSubstr("'types' is not usable"));
}

TEST_F(GgufValues, TheWrongTypeNamesFileAndKey) {
    const auto values = parse(sample().strings("names", {"a"}));
    EXPECT_EQ(error_of([&] { values.string("count"); }),
              "model.gguf: metadata key 'count' is not usable, expected a string");
    EXPECT_THAT(error_of([&] { values.integer("name", 0, 1); }), HasSubstr("expected an integer from 0 to 1"));
    EXPECT_THAT(error_of([&] { values.number("count"); }), HasSubstr("expected a finite floating-point number"));
    EXPECT_THAT(error_of([&] { values.boolean("count"); }), HasSubstr("expected true or false"));
    EXPECT_THAT(error_of([&] { values.strings("count"); }), HasSubstr("expected an array of strings"));
    EXPECT_THAT(error_of([&] { values.integers("names", 0, 9); }), HasSubstr("each item an integer from 0 to 9"));
    EXPECT_THAT(error_of([&] { values.numbers("names"); }), HasSubstr("an array of finite floating-point numbers"));
    EXPECT_EQ(error_of([&] { values.string("other"); }), "model.gguf: metadata key 'other' is missing");
}

}  // namespace
}  // namespace mha2mla::checkpoint
