#include "eval/retrieval.h"

#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "core/test_support.h"

namespace mha2mla::eval {
namespace {
namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Retrieval, FindsTheAnswerAnywhereAndAtTheBegin) {
    const auto scores = [](std::string_view output) {
        const auto score = score_retrieval(output, "ab-12");
        return std::pair(score.is_found, score.is_exact);
    };
    EXPECT_EQ(scores(" \"ab-12\"}"), std::pair(true, true));
    EXPECT_EQ(scores("It is ab-12"), std::pair(true, false));
    EXPECT_EQ(scores("ab-13"), std::pair(false, false));
    EXPECT_EQ(scores(""), std::pair(false, false));
}

TEST(Retrieval, ReadsRowsAndNamesThoseWithout) {
    const core::test::TemporaryDirectory directory;
    const auto path = directory.path() / "rows.jsonl";
    std::ofstream(path) << "{\"context\": \"k: \", \"answer\": \"v\", \"answer_location\": 3}\n{\"context\": \"k\"}\n"
                           "{\"context\": \"\", \"answer\": \"v\"}\n";
    const auto data = read_key_values(path, 0);
    ASSERT_EQ(data.rows.size(), 1u);
    EXPECT_EQ(data.rows[0].prompt, "k: ");
    EXPECT_EQ(data.rows[0].answer, "v");
    EXPECT_THAT(data.left_out, ElementsAre(HasSubstr("line 2"), HasSubstr("line 3")));
    EXPECT_TRUE(read_key_values(path, 1).left_out.empty());
    std::ofstream(path) << "{\"text\": \"another benchmark\"}\n";
    EXPECT_THROW(read_key_values(path, 0), core::Error);
    fs::remove(path);
}

class HaystackTest : public testing::Test {
protected:
    RetrievalRow ask(const NeedleCell& cell, int number = 0) const {
        return Haystack(*words_, text_, chat_).question(cell, number, 7);
    }
    std::int64_t tokens(const RetrievalRow& row) const { return std::ssize(words_->encode(row.prompt, true)); }

    std::unique_ptr<tokenizer::Tokenizer> words_ = tokenizer::load_tokenizer(
        {{"tokenizer.json", core::read_text(MHA2MLA_FIXTURES "/models/tiny-text/tokenizer.json")}}, "tiny-text");
    std::string text_ = "The cat sat on the mat. The hen ran to the den. The dog dug. ";
    data::ChatTemplate chat_ = {};
};

TEST_F(HaystackTest, PromptsAreAsLongAsAskedForAndHoldTheNumberOnce) {
    for (const int length : {300, 512, 900}) {
        const auto row = ask({.length = length, .depth = 50});
        EXPECT_LE(tokens(row), length);
        EXPECT_GT(tokens(row), length - 8);
        const auto at = row.prompt.find(row.answer);
        ASSERT_NE(at, std::string::npos);
        EXPECT_EQ(row.prompt.find(row.answer, at + 1), std::string::npos);
        EXPECT_EQ(row.answer.size(), 5u);
    }
}

TEST_F(HaystackTest, TheNeedleLiesAtTheDepthBehindASentence) {
    double before = -1;
    for (const int depth : {0, 25, 50, 75, 100}) {
        const auto row = ask({.length = 900, .depth = depth});
        const auto at = row.prompt.find(" The secret number of the lighthouse keeper is " + row.answer);
        ASSERT_NE(at, std::string::npos);
        const bool is_behind_sentence = row.prompt[at - 1] == '.' || row.prompt[at - 1] == '\n';
        EXPECT_TRUE(is_behind_sentence || depth == 100) << row.prompt.substr(at - 1);
        EXPECT_GT(static_cast<double>(at), before);
        before = static_cast<double>(at);
    }
}

TEST_F(HaystackTest, NeedlesDifferAndRepeatWithTheSeed) {
    const NeedleCell cell{.length = 512, .depth = 50};
    EXPECT_EQ(ask(cell).prompt, ask(cell).prompt);
    EXPECT_NE(ask(cell).answer, ask(cell, 1).answer);
    EXPECT_NE(ask(cell).answer, ask({.length = 512, .depth = 75}).answer);
    EXPECT_NE(ask(cell).id, ask(cell, 1).id);
}

TEST_F(HaystackTest, AMessageIsWrappedAndOtherTextBegun) {
    EXPECT_TRUE(ask({.length = 512, .depth = 0}).prompt.ends_with("lighthouse keeper is"));
    chat_ = data::chat_template("mistral", "");
    EXPECT_TRUE(ask({.length = 512, .depth = 0}).prompt.ends_with("[/INST]"));
    EXPECT_LE(tokens(ask({.length = 512, .depth = 0})), 512);
}

TEST_F(HaystackTest, TooShortALengthIsAnError) {
    EXPECT_THROW(ask({.length = 20, .depth = 0}), core::Error);
    text_ = "";
    EXPECT_THROW(ask({.length = 512, .depth = 0}), core::Error);
}

TEST(NeedleHeatMap, HasAFieldForEachCell) {
    const std::vector<NeedleResult> results{{{1024, 0}, 1}, {{1024, 100}, 0}, {{2048, 0}, 0.5}, {{2048, 100}, 1}};
    const auto svg = needle_heat_map(results, "a < b & c");
    EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; c"));
    std::size_t fields = 0;
    for (std::size_t at = 0; (at = svg.find("stroke=\"white\"", at)) != std::string::npos; ++at) ++fields;
    EXPECT_EQ(fields, results.size());
    for (const char* words : {">1024<", ">2048<", ">0 %<", ">100 %<", ">50<", "#3ca05a", "#d64541", "#f5d66e"}) {
        EXPECT_THAT(svg, HasSubstr(words));
    }
}

}  // namespace
}  // namespace mha2mla::eval
