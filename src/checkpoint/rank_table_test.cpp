#include "checkpoint/rank_table.h"

#include <cstdlib>
#include <gmock/gmock.h>

#include "checkpoint/pickle.h"
#include "checkpoint/test_support.h"
#include "checkpoint/zip.h"

namespace mha2mla::checkpoint {
namespace {

using test::bytes_of;
using test::error_of;
using ::testing::HasSubstr;

std::string u16(std::size_t value) { return {static_cast<char>(value & 0xff), static_cast<char>(value >> 8 & 0xff)}; }
std::string u32(std::size_t value) { return u16(value & 0xffff) + u16(value >> 16); }

/// A zip archive of stored entries; `method` is written into each directory record.
std::string zip_of(const std::vector<std::pair<std::string, std::string>>& entries, std::size_t method = 0) {
    std::string archive;
    std::string directory;
    for (const auto& [name, data] : entries) {
        const std::string sizes = u32(0) + u32(data.size()) + u32(data.size()) + u16(name.size()) + u16(0);
        directory += "PK\x01\x02" + u16(20) + u16(20) + u16(0) + u16(method) + u32(0) + sizes + u16(0) + u16(0) +
                     u16(0) + u32(0) + u32(archive.size()) + name;
        archive += "PK\x03\x04" + u16(20) + u16(0) + u16(method) + u32(0) + sizes + name + data;
    }
    return archive + directory + "PK\x05\x06" + u16(0) + u16(0) + u16(entries.size()) + u16(entries.size()) +
           u32(directory.size()) + u32(archive.size()) + u16(0);
}

std::string text(const std::string& value) { return "X" + u32(value.size()) + value; }
std::string byte(int value) { return {'K', static_cast<char>(value)}; }

struct PickleParts {
    std::string function = "ctorch._utils\n_rebuild_tensor_v2\n";
    std::string storage = "(" + text("storage") + "ctorch\nByteStorage\n" + text("0") + text("cpu") + byte(16) + "tQ";
    std::string offset = byte(0);
    std::string shape = byte(1) + byte(2) + byte(8) + "\x87";
    std::string strides = byte(16) + byte(8) + byte(1) + "\x87";
    std::string rest =
        "\x89"
        "ccollections\nOrderedDict\n)R";
};

std::string pickle_of(const PickleParts& parts) {
    return "\x80\x02" + parts.function + "(" + parts.storage + parts.offset + parts.shape + parts.strides + parts.rest +
           "tR.";
}

/// 1 layer, 2 heads, width 8: both halves rank their 4 pairs.
const std::string good_ranks("\x03\x01\x00\x02\x03\x01\x00\x02\x00\x01\x02\x03\x00\x01\x02\x03", 16);

std::string table_file(const PickleParts& parts, const std::string& ranks = good_ranks) {
    return zip_of({{"t/data.pkl", pickle_of(parts)}, {"t/byteorder", "little"}, {"t/data/0", ranks}});
}

std::string table_error(const std::string& file) {
    return error_of([&] { parse_rank_table(bytes_of(file), "ranks.pth"); });
}

TEST(RankTable, ReadsAHandMadeFile) {
    const auto file = table_file({});
    const auto table = parse_rank_table(bytes_of(file), "ranks.pth");
    EXPECT_EQ(table.layers, 1);
    EXPECT_EQ(table.kv_heads, 2);
    EXPECT_EQ(table.head_dim, 8);
    EXPECT_EQ(table.at(0, 0, 0), 3);
    EXPECT_EQ(table.at(0, 0, 7), 2);
    EXPECT_EQ(table.at(0, 1, 3), 3);
}

struct PublishedTable {
    const char* file;
    int layers;
    int kv_heads;
    int head_dim;
    int first_ranks[3];  // of layer 0, head 0
};

TEST(RankTable, ReadsThePublishedTables) {
    const char* data = std::getenv("MHA2MLA_DATA");
    const auto folder = std::filesystem::path(data != nullptr ? data : MHA2MLA_SHARED_DATA) / "ranks";
    if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no published rank tables at " << folder;
    const PublishedTable tables[] = {{"135M_2norm_rank.pth", 30, 3, 64, {10, 17, 19}},
                                     {"smollm1_360M-2_norm_rank.pth", 32, 5, 64, {25, 28, 26}},
                                     {"qwen2_0.5B-2_norm_rank.pth", 24, 2, 64, {24, 18, 21}},
                                     {"llama2_7B-2_norm_rank.pth", 32, 32, 128, {22, 15, 9}}};
    for (const auto& published : tables) {
        const auto table = read_rank_table(folder / published.file);
        EXPECT_EQ(table.layers, published.layers) << published.file;
        EXPECT_EQ(table.kv_heads, published.kv_heads) << published.file;
        EXPECT_EQ(table.head_dim, published.head_dim) << published.file;
        for (int dim = 0; dim < 3; ++dim) EXPECT_EQ(table.at(0, 0, dim), published.first_ranks[dim]) << published.file;
    }
}

TEST(RankTable, RefusesWhatIsNoRanking) {
    auto repeated = good_ranks;
    repeated[9] = repeated[13] = 0;
    EXPECT_THAT(table_error(table_file({}, repeated)),
                HasSubstr("ranks.pth: layer 0, head 1 is not a ranking, expected every rank from 0 to 3 once"));
    auto unequal = good_ranks;
    unequal[4] = 1;
    unequal[5] = 3;
    EXPECT_THAT(table_error(table_file({}, unequal)), HasSubstr("layer 0, head 0 is not a ranking"));
    auto beyond = good_ranks;
    beyond[0] = beyond[4] = 4;
    EXPECT_THAT(table_error(table_file({}, beyond)), HasSubstr("layer 0, head 0 is not a ranking"));
}

TEST(RankTable, HoldsTheTensorAgainstItsStorage) {
    PickleParts parts;
    parts.offset = byte(1);
    EXPECT_THAT(table_error(table_file(parts)),
                HasSubstr("tensor exceeds its storage, expected 16 bytes at 1, got 16"));
    parts = {};
    parts.offset = "J" + u32(0xffffffff);
    EXPECT_THAT(table_error(table_file(parts)), HasSubstr("tensor exceeds its storage"));
    parts = {};
    parts.shape = byte(2) + byte(8) + "\x86";
    parts.strides = byte(8) + byte(1) + "\x86";
    EXPECT_THAT(table_error(table_file(parts)),
                HasSubstr("tensor has the wrong shape, expected [layers, kv_heads, head_dim], got [2, 8]"));
    parts = {};
    parts.shape = "J" + u32(0x7fffffff) + byte(2) + byte(8) + "\x87";
    EXPECT_THAT(table_error(table_file(parts)), HasSubstr("tensor has the wrong shape"));
    parts = {};
    parts.strides = byte(16) + byte(1) + byte(2) + "\x87";
    EXPECT_THAT(table_error(table_file(parts)), HasSubstr("tensor is not contiguous"));
    parts = {};
    parts.storage = "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + byte(16) + "tQ";
    EXPECT_THAT(table_error(table_file(parts)),
                HasSubstr("tensor has the wrong type, expected torch.ByteStorage, got torch.FloatStorage"));
    parts = {};
    parts.storage = "(" + text("storage") + "ctorch\nByteStorage\n" + text("7") + text("cpu") + byte(16) + "tQ";
    EXPECT_THAT(table_error(table_file(parts)), HasSubstr("storage '7' is missing"));
}

TEST(RankTable, RefusesOtherArchives) {
    EXPECT_THAT(table_error(""), HasSubstr("not a zip archive, or a truncated one"));
    EXPECT_THAT(table_error("PK\x03\x04 something that ends early"), HasSubstr("not a zip archive"));
    EXPECT_THAT(table_error(zip_of({{"readme", "hello"}})), HasSubstr("is no PyTorch file (no data.pkl"));
    EXPECT_THAT(table_error(zip_of({{"a/data.pkl", ""}, {"a/byteorder", "big"}})), HasSubstr("another byte order"));
    EXPECT_THAT(table_error(zip_of({{"a/data.pkl", "\x80\x02]."}})), HasSubstr("does not hold one tensor"));
    const auto file = table_file({});
    EXPECT_THAT(table_error(file.substr(0, file.size() - 30)), HasSubstr("not a zip archive, or a truncated one"));
}

TEST(Zip, ChecksEveryBound) {
    const std::vector<std::pair<std::string, std::string>> entries{{"a", "xyz"}};
    const auto error = [](const std::string& archive) {
        return error_of([&] { read_zip(bytes_of(archive), "x.zip"); });
    };
    const auto good = zip_of(entries);
    const auto read = read_zip(bytes_of(good), "x.zip");
    ASSERT_EQ(read.at("a").size(), 3u);
    EXPECT_EQ(std::memcmp(read.at("a").data(), "xyz", 3), 0);
    EXPECT_THAT(error(zip_of(entries, 8)), HasSubstr("zip entry 'a' is compressed"));
    EXPECT_THAT(error(zip_of({{"a", "1"}, {"a", "2"}})), HasSubstr("zip entry 'a' appears twice"));
    const std::size_t directory = good.find("PK\x01\x02");
    const auto patched = [&](std::size_t offset, const std::string& bytes) {
        auto archive = good;
        return archive.replace(offset, bytes.size(), bytes);
    };
    EXPECT_THAT(error(patched(directory + 42, u32(1))), HasSubstr("zip entry 'a' is damaged"));
    EXPECT_THAT(error(patched(directory + 42, u32(0xfffffff0))), HasSubstr("truncated or damaged"));
    EXPECT_THAT(error(patched(directory + 20, u32(1u << 30) + u32(1u << 30))), HasSubstr("truncated or damaged"));
    EXPECT_THAT(error(patched(directory + 28, u16(0xffff))), HasSubstr("truncated or damaged"));
    EXPECT_THAT(error(patched(good.size() - 6, u32(0))), HasSubstr("zip directory is damaged"));
    EXPECT_THAT(error(patched(good.size() - 12, u16(2))), HasSubstr("zip directory is damaged"));
}

TEST(Pickle, ReadsPlainContainers) {
    // [None, True, -2, 2.5, "hi", (1, 2), {3: 4}], the integer 1 from the memo
    const std::string program = "\x80\x02](N\x88J" + u32(0xfffffffe) + std::string("G\x40\x04\0\0\0\0\0\0", 9) +
                                text("hi") + byte(1) + "q\x05" + byte(2) + "\x86}(" + byte(3) + byte(4) + "ue.";
    const auto pickle = parse_pickle(bytes_of(program), "x");
    const auto& items = std::get<PickleSequence>(pickle.values[pickle.root]).items;
    ASSERT_EQ(items.size(), 7u);
    EXPECT_TRUE(std::holds_alternative<std::monostate>(pickle.values[items[0]]));
    EXPECT_EQ(std::get<bool>(pickle.values[items[1]]), true);
    EXPECT_EQ(std::get<std::int64_t>(pickle.values[items[2]]), -2);
    EXPECT_EQ(std::get<double>(pickle.values[items[3]]), 2.5);
    EXPECT_EQ(std::get<std::string>(pickle.values[items[4]]), "hi");
    EXPECT_TRUE(std::get<PickleSequence>(pickle.values[items[5]]).is_tuple);
    EXPECT_EQ(std::get<PickleDict>(pickle.values[items[6]]).items.size(), 1u);
}

struct BrokenPickle {
    std::string program;  // after the protocol
    const char* message;
};

TEST(Pickle, RefusesEverythingElseByName) {
    const BrokenPickle cases[] = {
        {"cos\nsystem\n" + text("true") + "\x85R.", "pickle asks for 'os.system'"},
        {"cbuiltins\neval\n.", "pickle asks for 'builtins.eval', which a file of plain tensors does not need"},
        {"ctorch\nByteStorage\n)R.", "pickle calls 'torch.ByteStorage'"},
        {"ccollections\nOrderedDict\n]\x85R.", "pickle makes an OrderedDict from arguments"},
        {"\x93.", "pickle instruction 0x93 is not allowed in a file of plain tensors"},
        {"ios\nsystem\n.", "pickle instruction 0x69 is not allowed"},
        {"}}b.", "pickle instruction 0x62 is not allowed"},
        {"N", "pickle is truncated"},
        {"X" + u32(0xffffffff) + "abc", "pickle is truncated"},
        {"ctorch\nByteStorage", "pickle is truncated"},
        {".", "pickle ends with an unfinished value"},
        {"NN.", "pickle ends with an unfinished value"},
        {"(N.", "pickle ends with an unfinished value"},
        {"t.", "pickle takes from an empty stack"},
        {"\x87.", "pickle takes from an empty stack"},
        {"N(\x85.", "pickle takes from an empty stack"},
        {"q\x01.", "pickle takes from an empty stack"},
        {"h\x01.", "pickle recalls value 1, which it never kept"},
        {")Na.", "pickle appends to a tuple"},
        {"NNa.", "pickle has another value where a list belongs"},
        {"}(Nu.", "pickle has a key without a value"},
        {"NQ.", "pickle has another value where a tuple belongs"},
        {")Q.", "pickle has a tuple that is too short"},
        {"\x8a\x09"
         "123456789.",
         "pickle holds an integer of more than 64 bits"},
        {std::string(70000, 'N') + ".", "pickle holds too many values"},
        {"Nq\x01" +
             [] {
                 std::string s;
                 for (int i = 0; i < 70000; ++i) s += "h\x01";
                 return s;
             }() +
             ".",
         "pickle nests too deeply"},
        {std::string(2 << 20, '('), "pickle is too large"},
    };
    for (const auto& broken : cases) {
        const auto program = "\x80\x02" + broken.program;
        const auto message = error_of([&] { parse_pickle(bytes_of(program), "x.pth"); });
        EXPECT_THAT(message, HasSubstr(broken.message)) << broken.program.substr(0, 40);
        EXPECT_THAT(message, HasSubstr("x.pth: ")) << broken.program.substr(0, 40);
    }
    EXPECT_THAT(error_of([&] { parse_pickle(bytes_of("\x80\x05N."), "x"); }), HasSubstr("is no pickle of protocol 2"));
}

TEST(Pickle, ReadsLongIntegers) {
    for (const auto& [bytes, value] : {std::pair<std::string, std::int64_t>{"\x01\xff", -1},
                                       {std::string("\x02\xff\0", 3), 255},
                                       {std::string("\x08\0\0\0\0\0\0\0\x80", 9), INT64_MIN},
                                       {std::string("\0", 1), 0}}) {
        const auto program = "\x80\x02\x8a" + bytes + ".";
        const auto pickle = parse_pickle(bytes_of(program), "x");
        EXPECT_EQ(std::get<std::int64_t>(pickle.values[pickle.root]), value);
    }
}

TEST(Pickle, SurvivesAListThatHoldsItself) {
    const std::string program =
        "\x80\x02]q\x01h\x01"
        "a.";
    const auto pickle = parse_pickle(bytes_of(program), "x");
    EXPECT_EQ(std::get<PickleSequence>(pickle.values[pickle.root]).items[0], pickle.root);
}

}  // namespace
}  // namespace mha2mla::checkpoint
