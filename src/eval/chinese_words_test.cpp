// A dictionary of a few words; the real one is compared in answer_metrics_test.cpp.

#include "eval/chinese_words.h"

#include <fstream>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/test_support.h"

namespace mha2mla::eval {
namespace {
namespace fs = std::filesystem;
using Pieces = std::vector<std::string>;

void write(const fs::path& path, const std::string& content) { std::ofstream(path) << content; }

class ChineseWordsTest : public testing::Test {
protected:
    void SetUp() override {
        fs::remove_all(folder_);
        fs::create_directories(folder_ / "finalseg");
        write(folder_ / "dict.txt", "中国 100 ns\n中国人 90 n\n国人 5 n\n人 1000 n\n来 20\n");
        write(folder_ / "finalseg/prob_start.py", "P={'B': -0.1, 'E': -3.14e+100,\n 'M': -3.14e+100, 'S': -2}");
        write(folder_ / "finalseg/prob_trans.py",
              "P={'B': {'E': -0.1, 'M': -2}, 'E': {'B': -1, 'S': -1}, 'M': {'E': -1, 'M': -1}, 'S': {}}");
        write(folder_ / "finalseg/prob_emit.py",
              "from __future__ import unicode_literals\n\nP={'B': {'\\u6797': -1}, 'E': {'家': -1}, 'M': {}, "
              "'S': {'\\u597d': -1}}\n");
    }
    void expect_error(const char* name, const std::string& content) {
        write(folder_ / name, content);
        EXPECT_THROW(ChineseWords{folder_}, core::Error) << name << ": " << content;
        SetUp();
    }

    core::test::TemporaryDirectory directory_;
    fs::path folder_ = directory_.path();
};

TEST_F(ChineseWordsTest, TakesTheLikeliestWay) {
    const ChineseWords words(folder_);
    EXPECT_EQ(words.cut("中国人来中国"), (Pieces{"中国人", "来", "中国"}));
    EXPECT_EQ(words.cut(""), Pieces{});
}

TEST_F(ChineseWordsTest, ShapesFindUnknownWords) {
    const ChineseWords words(folder_);
    EXPECT_EQ(words.cut("林家中国"), (Pieces{"林家", "中国"}));
    EXPECT_EQ(words.cut("来好"), (Pieces{"来", "好"})) << "of ways that are all impossible, the last state's";
}

TEST_F(ChineseWordsTest, OtherTextIsCutByKind) {
    const ChineseWords words(folder_);
    EXPECT_EQ(words.cut("ab1.5%-x 中国\r\n!"), (Pieces{"ab1.5%", "-", "x", " ", "中国", "\r\n", "!"}));
}

TEST_F(ChineseWordsTest, DamagedFilesAreErrors) {
    expect_error("dict.txt", "");
    expect_error("dict.txt", "中国\n");
    expect_error("dict.txt", "中国 -1 n\n");
    expect_error("dict.txt", "中国 99999999999999999999 n\n");
    expect_error("dict.txt", "\xff 3 n\n");
    for (const char* table : {"finalseg/prob_start.py", "finalseg/prob_trans.py", "finalseg/prob_emit.py"}) {
        for (const char* content :
             {"", "P=", "P={", "P={'B'", "P={'B':", "P={'B': {", "P={'B': -1", "P={'X': -1}", "P={'B': {'\\u12",
              "P={'B': {'\\uzzzz': 1}}", "P={'B': {'ab': 1}}", "P={'B': nan}", "P={'B': {'\xe4"}) {
            expect_error(table, content);
        }
    }
}

TEST_F(ChineseWordsTest, AMissingFileSaysHowToGetIt) {
    fs::remove(folder_ / "dict.txt");
    try {
        const ChineseWords words(folder_);
        FAIL() << "no error";
    } catch (const core::Error& error) {
        EXPECT_NE(std::string(error.what()).find("pip install"), std::string::npos);
    }
}

}  // namespace
}  // namespace mha2mla::eval
