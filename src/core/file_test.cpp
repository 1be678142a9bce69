#include "core/file.h"

#include <algorithm>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "core/error.h"

namespace mha2mla::core {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

template <typename Action>
std::string error_of(Action action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

class FileTest : public ::testing::Test {
protected:
    void SetUp() override {
        const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
        root_ = fs::temp_directory_path() / fmt::format("mha2mla-core-{}-{}", info->name(), ::getpid());
        fs::remove_all(root_);
        fs::create_directory(root_);
    }
    void TearDown() override { fs::remove_all(root_); }

    std::vector<std::string> names() const {
        std::vector<std::string> found;
        for (const auto& entry : fs::directory_iterator(root_)) found.push_back(entry.path().filename().string());
        std::sort(found.begin(), found.end());
        return found;
    }

    fs::path root_;
};

TEST_F(FileTest, WritesAndReadsBack) {
    const std::string text("a\0b\n", 4);
    write_text(root_ / "a", text);
    EXPECT_EQ(read_text(root_ / "a"), text);
    EXPECT_THAT(error_of([&] { read_text(root_ / "a", 3); }), HasSubstr("file is too large, expected at most 3 bytes"));
    EXPECT_THAT(error_of([&] { read_text(root_ / "b"); }), HasSubstr("b: no such file"));
    EXPECT_THAT(error_of([&] { read_text(root_); }), HasSubstr("is a directory"));
    EXPECT_THAT(error_of([&] { write_text(root_ / "no" / "a", ""); }), HasSubstr("cannot create (No such file"));
}

TEST_F(FileTest, MapsAFile) {
    write_text(root_ / "a", "hello");
    write_text(root_ / "empty", "");
    MappedFile file(root_ / "a");
    const MappedFile moved = std::move(file);
    ASSERT_EQ(moved.bytes().size(), 5u);
    EXPECT_EQ(std::to_integer<char>(moved.bytes()[4]), 'o');
    EXPECT_EQ(moved.path(), root_ / "a");
    EXPECT_TRUE(MappedFile(root_ / "empty").bytes().empty());
    EXPECT_THAT(error_of([&] { MappedFile{root_ / "b"}; }), HasSubstr("b: cannot open (No such file"));
    EXPECT_THAT(error_of([&] { MappedFile{root_}; }), HasSubstr("not a regular file"));
}

TEST_F(FileTest, WritesAtPositions) {
    OutputFile file(root_ / "a");
    file.write_at(3, std::as_bytes(std::span("def", 3)));
    file.write_at(0, std::as_bytes(std::span("abc", 3)));
    file.sync_and_close();
    EXPECT_EQ(read_text(root_ / "a"), "abcdef");
}

TEST_F(FileTest, SaysWhenTheDiskIsFull) {
    if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
    OutputFile file("/dev/full");
    EXPECT_THAT(error_of([&] { file.write_at(0, std::as_bytes(std::span("abc", 3))); }),
                HasSubstr("/dev/full: cannot write (No space left on device); check the free space"));
}

TEST_F(FileTest, StagedDirectoryAppearsAtOnce) {
    {
        StagedDirectory staged(root_ / "out", false);
        write_text(staged.path() / "a", "1");
        EXPECT_FALSE(fs::exists(root_ / "out"));
        staged.commit();
    }
    EXPECT_THAT(names(), ElementsAre("out"));
    EXPECT_EQ(read_text(root_ / "out" / "a"), "1");
}

TEST_F(FileTest, StagedDirectoryLeavesNothingWithoutCommit) {
    {
        StagedDirectory staged(root_ / "out", false);
        write_text(staged.path() / "a", "1");
    }
    EXPECT_THAT(names(), IsEmpty());
}

TEST_F(FileTest, StagedDirectoryReplacesOnlyWhenAsked) {
    fs::create_directory(root_ / "out");
    write_text(root_ / "out" / "old", "1");
    EXPECT_THAT(error_of([&] { StagedDirectory(root_ / "out", false); }),
                HasSubstr("out: already exists; choose another name; convert replaces a model with --force"));
    { StagedDirectory abandoned(root_ / "out", true); }
    EXPECT_EQ(read_text(root_ / "out" / "old"), "1");

    StagedDirectory staged(root_ / "out/", true);
    write_text(staged.path() / "new", "2");
    EXPECT_EQ(read_text(root_ / "out" / "old"), "1");
    staged.commit();
    EXPECT_THAT(names(), ElementsAre("out"));
    EXPECT_FALSE(fs::exists(root_ / "out" / "old"));
    EXPECT_EQ(read_text(root_ / "out" / "new"), "2");
}

TEST_F(FileTest, ScratchFileHasNoNameAndGivesBackWhatItGot) {
    ScratchFile file(root_);
    EXPECT_THAT(names(), IsEmpty());
    const std::string text = "0123456789";
    file.write_at(5, std::as_bytes(std::span(text)));
    file.write_at(7, std::as_bytes(std::span(text).first(2)));
    std::string got(10, '?');
    file.read_at(5, std::as_writable_bytes(std::span(got)));
    EXPECT_EQ(got, "0101456789");
    EXPECT_THROW(file.read_at(6, std::as_writable_bytes(std::span(got))), std::logic_error);
    EXPECT_THAT(error_of([&] { ScratchFile(root_ / "no"); }), HasSubstr("no: cannot create a temporary file here"));
}

TEST_F(FileTest, MovesADirectoryIntoPlaceAndReplacesNothing) {
    fs::create_directory(root_ / "work");
    write_text(root_ / "work" / "a", "1");
    move_into_place(root_ / "work", root_ / "out/");
    EXPECT_THAT(names(), ElementsAre("out"));
    fs::create_directory(root_ / "work");
    EXPECT_THAT(error_of([&] { move_into_place(root_ / "work", root_ / "out"); }), HasSubstr("already exists"));
    EXPECT_EQ(read_text(root_ / "out" / "a"), "1");
}

TEST_F(FileTest, FlushesFilesAndDirectories) {
    write_text(root_ / "a", "1");
    sync_to_disk(root_ / "a");
    sync_to_disk(root_);
    EXPECT_THAT(error_of([&] { sync_to_disk(root_ / "b"); }), HasSubstr("b: cannot open"));
}

TEST_F(FileTest, PartialLiesBesideItsTarget) {
    EXPECT_EQ(partial_path(root_ / "out/"), root_ / "out.partial");
    EXPECT_EQ(partial_path("out"), fs::current_path() / "out.partial");
}

TEST_F(FileTest, StagedDirectoryNeedsItsParent) {
    EXPECT_THAT(error_of([&] { StagedDirectory(root_ / "no" / "out", false); }),
                HasSubstr("no such directory; create it first"));
}

}  // namespace
}  // namespace mha2mla::core
