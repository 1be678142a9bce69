#include "eval/results_file.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "core/test_support.h"

namespace mha2mla::eval {
namespace {

class ResultsFileTest : public testing::Test {
protected:
    core::test::TemporaryDirectory directory_;
    std::filesystem::path path_ = directory_.path() / "results.jsonl";
    core::Json run_{{"model", "m"}, {"limit", 3}};
};

TEST_F(ResultsFileTest, GoesOnWhereARunWasKilled) {
    ResultsFile(path_, run_).add("a", {{"score", 0.5}});
    std::ofstream(path_, std::ios::app) << R"({"id": "b", "res)";
    {
        ResultsFile again(path_, run_);
        ASSERT_NE(again.find("a"), nullptr);
        EXPECT_EQ((*again.find("a"))["score"], 0.5);
        EXPECT_EQ(again.find("b"), nullptr) << "its line was torn";
        again.add("b", 2);
    }
    EXPECT_EQ(ResultsFile(path_, run_).size(), 2u);
}

TEST_F(ResultsFileTest, IsWrittenByOneAtATime) {
    ResultsFile first(path_, run_);
    EXPECT_THROW(ResultsFile(path_, run_), core::Error);
    ResultsFile moved = std::move(first);
    EXPECT_THROW(ResultsFile(path_, run_), core::Error);
    moved = {};
    EXPECT_EQ(ResultsFile(path_, run_).size(), 0u);
}

TEST_F(ResultsFileTest, RefusesAnotherRunsFile) {
    ResultsFile(path_, run_).add("a", 1);
    try {
        ResultsFile(path_, {{"model", "other"}, {"limit", 3}});
        FAIL() << "no error";
    } catch (const core::Error& error) {
        EXPECT_EQ(error.info().expected, R"({"model":"other"})") << "only what differs";
        EXPECT_EQ(error.info().got, R"({"model":"m"})");
    }
}

TEST_F(ResultsFileTest, LeavesFilesThatAreNotItsOwnAsTheyAre) {
    for (const std::string text : {R"({"some": "settings"})", "a line\nanother, without its end", "GGUF\n\x01"}) {
        std::ofstream(path_, std::ios::trunc) << text;
        EXPECT_THROW(ResultsFile(path_, run_), core::Error) << text;
        EXPECT_EQ(core::read_text(path_), text);
    }
}

TEST_F(ResultsFileTest, WritesATornHeaderAnew) {
    std::ofstream(path_) << R"({"run":{"li)";
    ResultsFile(path_, run_).add("a", 1);
    EXPECT_EQ(ResultsFile(path_, run_).size(), 1u);
}

TEST_F(ResultsFileTest, RefusesADamagedFile) {
    ResultsFile(path_, run_).add("a", 1);
    std::ofstream(path_, std::ios::app) << "{\"id\": 7}\n";
    EXPECT_THROW(ResultsFile(path_, run_), core::Error);
}

TEST_F(ResultsFileTest, KeepsNothingWithoutAPath) {
    ResultsFile results;
    results.add("a", 1);
    EXPECT_EQ(*results.find("a"), 1);
}

}  // namespace
}  // namespace mha2mla::eval
