#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <limits>

#include "checkpoint/test_support.h"

namespace mha2mla::checkpoint {
namespace {

using test::bytes_of;
using test::error_of;
using test::safetensors_file;
using test::TemporaryDirectory;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string floats(const std::vector<float>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::string halves(const std::vector<std::uint16_t>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(std::uint16_t)};
}

std::string parse_error(const std::string& file) {
    return error_of([&] { parse_safetensors(bytes_of(file), "model.safetensors"); });
}

TEST(SafetensorsHeader, PlacesTensorsInTheFile) {
    const std::string header =
        R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,1],"data_offsets":[8,12]},)"
        R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"e":{"dtype":"F32","shape":[0,4],"data_offsets":[8,8]}})";
    const auto file = safetensors_file(header, std::string(16, '\0'));  // 4 bytes that belong to nothing
    const auto entries = parse_safetensors(bytes_of(file), "x");
    ASSERT_EQ(entries.size(), 3u);
    EXPECT_EQ(entries[0].name, "a");
    EXPECT_EQ(entries[0].begin, 8 + header.size());
    EXPECT_EQ(entries[1].name, "e");
    EXPECT_EQ(entries[2].name, "b");
    EXPECT_EQ(entries[2].type, core::DType::bf16);
    EXPECT_THAT(entries[2].shape, ElementsAre(2, 1));
    EXPECT_EQ(entries[2].end, 8 + header.size() + 12);
}

struct BrokenHeader {
    const char* header;
    const char* message;
};

TEST(SafetensorsHeader, NamesWhatIsBroken) {
    const BrokenHeader cases[] = {
        {R"({"a":)", "not valid JSON"},
        {R"([])", "header is not a JSON object"},
        {R"({"a":3})", "tensor 'a': not a JSON object"},
        {R"({"a":{"shape":[2],"data_offsets":[0,8]}})", "tensor 'a': field 'dtype' is missing"},
        {R"({"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}})",
         R"(tensor 'a': field 'dtype' is not usable, expected F32, F16 or BF16, got "I32")"},
        {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,20]}})", "field 'data_offsets' is not usable"},
        {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
         "field 'data_offsets' is not usable, expected [begin, end], got [8,0]"},
        {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "field 'data_offsets' is not usable"},
        {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", "field 'data_offsets' is not usable"},
        {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "expected 12 bytes for shape [3], got [0,8]"},
        {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "field 'shape' is not usable"},
        {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "at most 2^48 elements"},
        {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", "field 'shape' is not usable"},
        {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}})",
         "tensors 'a' and 'b' overlap"},
        {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
         "JSON key 'a' appears twice"},
    };
    for (const auto& broken : cases) {
        const auto message = parse_error(safetensors_file(broken.header, std::string(16, '\0')));
        EXPECT_THAT(message, HasSubstr(broken.message)) << broken.header;
        EXPECT_THAT(message, HasSubstr("model.safetensors")) << broken.header;
    }
}

TEST(SafetensorsHeader, BoundsItsLength) {
    EXPECT_THAT(parse_error(""), HasSubstr("file is too short for a safetensors header"));
    EXPECT_THAT(parse_error("1234567"), HasSubstr("file is too short"));
    const auto good = safetensors_file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234");
    ASSERT_EQ(parse_error(good), "");
    EXPECT_THAT(parse_error(good.substr(0, 30)), HasSubstr("exceeds the file (30 bytes)"));
    EXPECT_THAT(parse_error(good.substr(0, good.size() - 1)), HasSubstr("field 'data_offsets' is not usable"));
    EXPECT_THAT(parse_error(std::string(8, '\xff') + "{}"), HasSubstr("exceeds the file"));
}

TEST(SafetensorsSource, ConvertsRowsOfEveryType) {
    const TemporaryDirectory directory;
    // Odd offsets on purpose: the header is 1 byte longer than a multiple of 4.
    std::string header = R"({"f":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                         R"("h":{"dtype":"F16","shape":[3],"data_offsets":[16,22]},)"
                         R"("b":{"dtype":"BF16","shape":[],"data_offsets":[22,24]}})";
    header.resize((header.size() + 3) / 4 * 4 + 1, ' ');
    const auto data = floats({1.5f, -2, 3, 4}) + halves({0x3c00, 0xc000, 0x0001}) + halves({0x4049});
    core::write_text(directory.path() / "model.safetensors", safetensors_file(header, data));

    const SafetensorsSource source(directory.path());
    std::vector<float> rows(2);
    source.read_rows("f", 1, 1, rows);
    EXPECT_THAT(rows, ElementsAre(3, 4));
    rows.resize(3);
    source.read_rows("h", 0, 3, rows);
    EXPECT_THAT(rows, ElementsAre(1, -2, 0x1p-24f));
    rows.resize(1);
    source.read_rows("b", 0, 1, rows);
    EXPECT_THAT(rows, ElementsAre(3.140625f));
    EXPECT_EQ(source.stored_type("h"), "F16");
    EXPECT_EQ(source.shape_of("f"), (Shape{2, 2}));
    EXPECT_EQ(source.shape_of("g"), std::nullopt);
    EXPECT_THROW(source.read_rows("f", 1, 2, rows), std::logic_error);
}

TEST(SafetensorsSource, RefusesValuesThatAreNotFinite) {
    const TemporaryDirectory directory;
    const float infinite = std::numeric_limits<float>::infinity();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::string header = R"({"f":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
                               R"("h":{"dtype":"F16","shape":[1],"data_offsets":[16,18]},)"
                               R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[18,20]}})";
    const auto data = floats({1, nan, 2, infinite}) + halves({0x7c00, 0x7fc0});
    core::write_text(directory.path() / "model.safetensors", safetensors_file(header, data));
    const SafetensorsSource source(directory.path());
    std::vector<float> row(1);
    const auto message_at = [&](const char* name, std::int64_t first) {
        return error_of([&] { source.read_rows(name, first, 1, row); });
    };
    EXPECT_EQ(message_at("f", 0), "");
    for (const auto& [name, first] : {std::pair("f", 1), {"f", 3}, {"h", 0}, {"b", 0}}) {
        EXPECT_THAT(message_at(name, first),
                    HasSubstr(fmt::format("model.safetensors: tensor '{}' holds values that are not finite", name)));
    }
}

/// Two shards, one tensor each, with an index of the given text.
std::string shards_error(const std::string& index, bool with_second_shard = true, const char* second_tensor = "b") {
    const TemporaryDirectory directory;
    const auto shard = [](const char* name) {
        return safetensors_file(fmt::format(R"({{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}})", name),
                                "1234");
    };
    core::write_text(directory.path() / "model.safetensors.index.json", index);
    core::write_text(directory.path() / "s1", shard("a"));
    if (with_second_shard) core::write_text(directory.path() / "s2", shard(second_tensor));
    return error_of([&] { SafetensorsSource source(directory.path()); });
}

TEST(SafetensorsSource, HoldsTheIndexAgainstItsShards) {
    const std::string good = R"({"weight_map":{"a":"s1","b":"s2"}})";
    EXPECT_EQ(shards_error(good), "");
    EXPECT_THAT(shards_error(good, false), HasSubstr("shard 's2' is missing; fetch the missing file"));
    EXPECT_THAT(shards_error(good, true, "a"), HasSubstr("s2: tensor 'a' is also in s1"));
    EXPECT_THAT(shards_error(R"({"weight_map":{"a":"s2","b":"s1"}})"),
                HasSubstr("tensor 'a' is not in 's2', where the index places it"));
    EXPECT_THAT(shards_error(R"({"weight_map":{"a":"s1","b":"s2","c":"s2"}})"), HasSubstr("tensor 'c' is not in 's2'"));
    EXPECT_THAT(shards_error(good, true, "c"), HasSubstr("tensor 'b' is not in 's2'"));
    EXPECT_THAT(shards_error(R"({"weight_map":{"a":"s1","b":"../s2"}})"),
                HasSubstr("expected the name of a file in the same directory, got \"../s2\""));
    EXPECT_THAT(shards_error(R"({"weight_map":{"a":"s1","b":3}})"), HasSubstr("field 'b' is not usable"));
    EXPECT_THAT(shards_error(R"({"metadata":{}})"), HasSubstr("field 'weight_map' is missing"));
    EXPECT_THAT(shards_error("{"), HasSubstr("not valid JSON"));
}

TEST(SafetensorsSource, RefusesTensorsThatTheIndexLeavesOut) {
    const TemporaryDirectory directory;
    const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                               R"("z":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
    core::write_text(directory.path() / "s1", safetensors_file(header, "12345678"));
    core::write_text(directory.path() / "model.safetensors.index.json", R"({"weight_map":{"a":"s1"}})");
    EXPECT_THAT(error_of([&] { SafetensorsSource source(directory.path()); }),
                HasSubstr("s1: tensor 'z' is not in the index"));
}

}  // namespace
}  // namespace mha2mla::checkpoint
