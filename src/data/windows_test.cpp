#include "data/windows.h"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace mha2mla::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// A file in the test's own temporary folder.
std::filesystem::path write(const std::string& name, const std::string& bytes) {
    const auto path = std::filesystem::path(testing::TempDir()) / ("mha2mla_data_" + name);
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
}

template <typename Call>
std::string message_of(const Call& call) {
    try {
        call();
    } catch (const core::Error& error) {
        return error.what();
    }
    return "no error";
}

TEST(TokenWindows, CutsInOrderAndDropsTheRest) {
    const TokenWindows windows({1, 2, 3, 4, 5, 6, 7}, 3);
    ASSERT_EQ(windows.count(), 2);
    EXPECT_EQ(windows.window(), 3);
    EXPECT_THAT(windows[0], ElementsAre(1, 2, 3));
    EXPECT_THAT(windows[1], ElementsAre(4, 5, 6));
}

TEST(TokenWindows, AStrideMakesThemOverlap) {
    const TokenWindows windows({1, 2, 3, 4, 5, 6, 7, 8}, 4, 2);
    ASSERT_EQ(windows.count(), 3);
    EXPECT_THAT(windows[1], ElementsAre(3, 4, 5, 6));
    EXPECT_THAT(windows[2], ElementsAre(5, 6, 7, 8));
    EXPECT_THROW(TokenWindows({1, 2, 3}, 2, 3), core::Error) << "tokens between windows would be left out";
    EXPECT_THROW(TokenWindows({1, 2, 3}, 2, 0), core::Error);
}

TEST(TokenWindows, TooFewTokensMakeNoWindow) {
    EXPECT_EQ(TokenWindows({1, 2}, 3).count(), 0);
    EXPECT_EQ(TokenWindows({}, 1).count(), 0);
    EXPECT_EQ(TokenWindows({1, 2, 3}, 3).count(), 1);
}

TEST(TokenWindows, BadLengthsAndIndicesAreRefused) {
    EXPECT_THROW(TokenWindows({1}, 0), core::Error);
    EXPECT_THROW(TokenWindows({1}, -5), core::Error);
    const TokenWindows windows({1, 2}, 1);
    EXPECT_THROW(windows[2], std::logic_error);
    EXPECT_THROW(windows[-1], std::logic_error);
}

TEST(ReadTextFile, TurnsCrLfIntoLfAndNothingElse) {
    EXPECT_EQ(read_text_file(write("crlf.txt", "a\r\nb\n\r\r\nc\r")), "a\nb\n\r\nc\r");
}

TEST(ReadTextFile, RefusesWhatIsNotUtf8) {
    const auto path = write("latin1.txt", "caf\xe9 noir");
    EXPECT_THAT(message_of([&] { read_text_file(path); }),
                testing::AllOf(HasSubstr("byte 3"), HasSubstr("latin1.txt")));
}

TEST(ReadTextFile, NamesAMissingFile) {
    EXPECT_THAT(message_of([] { read_text_file("no/such/file.txt"); }), HasSubstr("no/such/file.txt"));
}

TEST(ReadDocuments, ATextIsOneDocument) {
    EXPECT_THAT(read_documents(write("one.txt", "first\n\nsecond\n")), ElementsAre("first\n\nsecond\n"));
}

TEST(ReadDocuments, JsonLinesAreADocumentEach) {
    const auto path =
        write("many.jsonl", "{\"text\": \"a\\nb\", \"id\": 1}\r\n\n  \n{\"text\": \"\"}\n{\"text\": \"c\"}");
    EXPECT_THAT(read_documents(path), ElementsAre("a\nb", "", "c"));
}

TEST(ReadDocuments, NamesTheBadLine) {
    const auto no_text = write("no_text.jsonl", "{\"text\": \"a\"}\n{\"content\": \"b\"}\n");
    EXPECT_THAT(message_of([&] { read_documents(no_text); }), testing::AllOf(HasSubstr("line 2"), HasSubstr("'text'")));
    const auto no_json = write("no_json.jsonl", "{\"text\": \"a\"}\n\nplain\n");
    EXPECT_THAT(message_of([&] { read_documents(no_json); }), HasSubstr("line 3"));
}

}  // namespace
}  // namespace mha2mla::data
