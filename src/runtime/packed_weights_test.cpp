#include "runtime/packed_weights.h"

#include <cstring>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/fingerprint.h"
#include "runtime/oracle.h"
#include "runtime/packed_header.h"
#include "runtime/weights.h"

namespace mha2mla::runtime {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;
using kernels::WeightFormat;
using test::Engine;
using testing::HasSubstr;

constexpr std::size_t head_bytes = 8 + 8 + 16;  // before the JSON

Checkpoint everything() {
    return test::random_model(test::tiny_mla_config({.name = "packed",
                                                     .nope_pairs = checkpoint::NopePairs::all,
                                                     .pairs = {5, 0},
                                                     .factors = true,
                                                     .own_rope_query = true,
                                                     .positional_part = true,
                                                     .sink_tokens = 4}),
                              "packed");
}

/// A directory, and a file in it.
class PackedFile : public testing::Test {
protected:
    PackedFile() { fs::create_directories(directory_); }
    ~PackedFile() override { fs::remove_all(directory_); }

    void pack(const Checkpoint& model, const WeightFormats& formats) const {
        core::Progress progress;
        core::ThreadPool pool(2);
        const auto weights = load_weights(model, {.formats = formats}, pool, progress);
        save_packed_weights(path_, model, formats, weights.store.matrices());
    }
    std::string contents() const {
        std::ifstream file(path_, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void replace(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }
    std::string refusal(const Checkpoint& model, const WeightFormats& formats) const {
        try {
            const PackedWeights packed(path_, model, formats);
        } catch (const core::Error& error) {
            return error.what();
        }
        return "";
    }

    fs::path directory_ = fs::path(testing::TempDir()) / ("packed-weights-" + std::to_string(getpid()));
    fs::path path_ = directory_ / "weights.mha2mla";
};

std::string parse_refusal(const std::string& bytes) {
    try {
        parse_packed_weights(std::as_bytes(std::span(bytes)), "file");
    } catch (const core::Error& error) {
        return error.what();
    }
    return "";
}

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

/// A file with the matrices' headers as given; the matrices themselves are zero.
std::string file_of(const std::vector<NamedMatrix>& matrices, std::size_t data_bytes) {
    const auto layout = packed_layout({.model = "model", .formats = "int8"}, matrices);
    std::string bytes = layout.head;
    bytes.resize(aligned(bytes.size()) + data_bytes);
    return bytes;
}

/// The same with a piece of the header replaced, and the fingerprint that goes with it.
std::string with_header(const std::string& file, const std::string& from, const std::string& to) {
    std::uint32_t length = 0;
    std::memcpy(&length, file.data() + 12, sizeof length);
    std::string header = file.substr(head_bytes, length);
    const std::size_t data_bytes = file.size() - aligned(head_bytes + length);
    header.replace(header.find(from), from.size(), to);
    core::Fingerprint print;
    print.add(std::as_bytes(std::span(header)));
    length = static_cast<std::uint32_t>(header.size());
    std::string bytes = file.substr(0, 12);
    bytes.append(reinterpret_cast<const char*>(&length), sizeof length).append(print.hex()).append(header);
    bytes.resize(aligned(bytes.size()) + data_bytes);
    return bytes;
}

TEST_F(PackedFile, GivesTheSameLogits) {
    const auto tokens = test::random_tokens(90, 101);
    const std::vector<Checkpoint> models{test::open_fixture("tiny-gqa"), test::open_fixture("tiny-bias"), everything()};
    for (const Checkpoint& model : models) {
        for (const WeightFormat format :
             {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
            pack(model, {format, default_output_format(format)});
            Engine loaded(model, {.weights = format});
            Engine mapped(model, {.weights = format, .packed_weights = path_});
            EXPECT_EQ(mapped.logits(tokens, 50), loaded.logits(tokens, 50)) << kernels::name_of(format);
            EXPECT_EQ(mapped.decoder.weight_bytes(), loaded.decoder.weight_bytes());
            EXPECT_EQ(mapped.decoder.step_weight_bytes(), loaded.decoder.step_weight_bytes());
        }
    }
}

TEST_F(PackedFile, ReplacesAnOlderOneAndLeavesNothingBehind) {
    const auto model = everything();
    pack(model, {WeightFormat::int8, WeightFormat::int8});
    pack(model, {WeightFormat::int4, WeightFormat::int8});
    EXPECT_EQ(refusal(model, {WeightFormat::int4, WeightFormat::int8}), "");
    EXPECT_EQ(std::distance(fs::directory_iterator(directory_), {}), 1);
    path_ = directory_ / "no-such-directory" / "file";
    EXPECT_THROW(pack(model, {}), core::Error);
}

TEST_F(PackedFile, OfAnotherModelOrFormatIsRefusedWithARemedy) {
    const auto model = everything();
    pack(model, {WeightFormat::int8, WeightFormat::int8});
    EXPECT_THAT(refusal(model, {WeightFormat::int4, WeightFormat::int8}), HasSubstr("mha2mla pack"));
    EXPECT_THAT(refusal(model, {WeightFormat::int8, WeightFormat::bf16}), HasSubstr("int8-bf16"));
    const auto other = test::random_model(test::tiny_config(), "other");
    EXPECT_THAT(refusal(other, {WeightFormat::int8, WeightFormat::int8}), HasSubstr("another model"));
}

TEST_F(PackedFile, AChangedRowChangesTheFingerprint) {
    const auto model = everything();
    EXPECT_EQ(fingerprint(model), fingerprint(everything()));
    EXPECT_NE(fingerprint(model), fingerprint(test::random_model(test::tiny_config(), "other")));
}

TEST_F(PackedFile, CutShortAnywhereIsRefused) {
    const auto model = everything();
    pack(model, {WeightFormat::int8, WeightFormat::int8});
    const std::string whole = contents();
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{7}, head_bytes - 1, head_bytes, head_bytes + 100,
                                    whole.size() / 2, whole.size() - 64}) {
        replace(whole.substr(0, bytes));
        EXPECT_THAT(refusal(model, {WeightFormat::int8, WeightFormat::int8}), HasSubstr("mha2mla pack")) << bytes;
    }
}

TEST_F(PackedFile, AChangedByteOfTheHeadIsRefused) {
    const auto model = everything();
    pack(model, {WeightFormat::int8, WeightFormat::int8});
    const std::string whole = contents();
    std::uint32_t length = 0;
    std::memcpy(&length, whole.data() + 12, sizeof length);
    for (std::size_t place = 0; place < head_bytes + length; place += place < head_bytes ? 1 : 97) {
        std::string changed = whole;
        changed[place] = static_cast<char>(changed[place] ^ 1);
        EXPECT_THAT(parse_refusal(changed), HasSubstr("mha2mla pack")) << place;
    }
}

// A header that is as it was written may still be a lie.
TEST(PackedIndex, SizesAndPlacesAreChecked) {
    const std::vector<NamedMatrix> matrices{{"a", {WeightFormat::int8, 16, 64}}, {"b", {WeightFormat::bf16, 16, 2}}};
    const std::string file = file_of(matrices, 1088 + 64);
    EXPECT_EQ(parse_refusal(file), "");
    EXPECT_EQ(parse_refusal(with_header(file, "\"model\"", "\"model\"")), "");
    EXPECT_THAT(parse_refusal(file_of(matrices, 1088 + 63)), HasSubstr("within the file"));
    EXPECT_THAT(parse_refusal(file_of(matrices, 1088 + 65)), HasSubstr("an end behind the last matrix"));
    EXPECT_THAT(parse_refusal(with_header(file, "\"offset\":1088", "\"offset\":1024")),
                HasSubstr("one after the other"));
    EXPECT_THAT(parse_refusal(with_header(file, "\"offset\":1088", "\"offset\":1089")), HasSubstr("64 bytes"));
    EXPECT_THAT(parse_refusal(with_header(file, "\"offset\":1088", "\"offset\":281474976710656")),
                HasSubstr("within the file"));
    EXPECT_THAT(
        parse_refusal(with_header(file, "\"outputs\":16,\"inputs\":2", "\"outputs\":16777216,\"inputs\":16777216")),
        HasSubstr("within the file"));
    for (const char* size : {"0", "-16", "16777217", "9223372036854775807", "1e3", "\"16\""}) {
        EXPECT_NE(parse_refusal(with_header(file, "\"inputs\":2", "\"inputs\":" + std::string(size))), "") << size;
    }
    EXPECT_THAT(parse_refusal(with_header(file, "\"bf16\"", "\"int3\"")), HasSubstr("format"));
    EXPECT_NE(parse_refusal(with_header(file, "\"b\"", "\"a\"")), "") << "two matrices of one name";
}

TEST(PackedIndex, ExceptionsOfCodedWeightsAreChecked) {
    const std::vector<NamedMatrix> matrices{
        {"a", {.format = WeightFormat::coded_bf16, .outputs = 16, .inputs = 8, .exceptions = 2}}};
    std::string file = file_of(matrices, 64 + 192 + 16);
    const std::size_t head = file.size() - 64 - 192 - 16;
    EXPECT_THAT(parse_refusal(file), HasSubstr("exceptions")) << "the tile has none";
    file[head + 20] = 2;
    EXPECT_EQ(parse_refusal(file), "");
    EXPECT_THAT(parse_refusal(file.substr(0, file.size() - 1)), HasSubstr("within the file"));
    file[file.size() - 8] = 8;
    EXPECT_THAT(parse_refusal(file), HasSubstr("exceptions")) << "of an input that there is not";
    for (const char* count : {"-1", "129", "\"2\""}) {
        EXPECT_THAT(parse_refusal(with_header(file, "\"exceptions\":2", "\"exceptions\":" + std::string(count))),
                    HasSubstr("128"));
    }
}

TEST(PackedIndex, NamesSayWhatIsNotTheDefault) {
    EXPECT_EQ(name_of({WeightFormat::int8, WeightFormat::int8}), "int8");
    EXPECT_EQ(name_of({WeightFormat::int4, WeightFormat::int8}), "int4");
    EXPECT_EQ(name_of({WeightFormat::int4, WeightFormat::int4}), "int4-int4");
    const auto model = test::open_fixture("tiny-gqa");
    EXPECT_EQ(packed_weights_path(model, {WeightFormat::int4, WeightFormat::int8}),
              model.path() / "packed-int4.mha2mla");
}

}  // namespace
}  // namespace mha2mla::runtime
