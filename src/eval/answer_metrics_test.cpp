// Fixture: tools/make_longbench_fixtures.py (the published metrics.py and its packages).

#include "eval/answer_metrics.h"

#include <cstdlib>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "eval/chinese_words.h"
#include "eval/rouge.h"

namespace mha2mla::eval {
namespace {

constexpr double tolerance = 1e-9;

const core::Json& published() {
    const std::string path = std::string(MHA2MLA_FIXTURES) + "/eval/longbench_scores.json";
    static const core::Json scores = core::parse_json(core::read_text(path), path);
    return scores;
}

/// Calls compare(prediction, truth, row) for each row of a section.
template <typename Compare>
void for_each_pair(const char* section, std::size_t at_least, const Compare& compare) {
    const auto& rows = published().at(section);
    ASSERT_GE(rows.size(), at_least);
    for (const auto& row : rows) {
        const auto prediction = row.at(0).get<std::string>(), truth = row.at(1).get<std::string>();
        SCOPED_TRACE("prediction: " + prediction + "\ntruth: " + truth);
        compare(prediction, truth, row);
    }
}

TEST(AnswerMetrics, EnglishAnswersScoreAsPublished) {
    for_each_pair("english", 150, [](const auto& prediction, const auto& truth, const core::Json& row) {
        EXPECT_NEAR(token_f1(prediction, truth), row.at(2).get<double>(), tolerance);
        EXPECT_NEAR(rouge_l(prediction, truth), row.at(3).get<double>(), tolerance);
    });
}

TEST(AnswerMetrics, ChineseWordsScoreAsPublished) {
    const auto& rows = published().at("chinese");
    ASSERT_GE(rows.size(), 120u);
    for (const auto& row : rows) {
        SCOPED_TRACE(row.dump());
        const auto prediction = row.at(0).at(0).get<std::vector<std::string>>();
        const auto truth = row.at(0).at(1).get<std::vector<std::string>>();
        EXPECT_NEAR(token_f1_zh(prediction, truth), row.at(1).get<double>(), tolerance);
        EXPECT_NEAR(rouge_l(prediction, truth), row.at(2).get<double>(), tolerance);
    }
}

TEST(AnswerMetrics, CodeScoresAsPublished) {
    for_each_pair("code", 110, [](const auto& prediction, const auto& truth, const core::Json& row) {
        EXPECT_NEAR(code_similarity(prediction, truth), row.at(2).get<double>(), tolerance);
    });
}

TEST(AnswerMetrics, ClassesScoreAsPublished) {
    for_each_pair("classes", 80, [](const auto& prediction, const auto& truth, const core::Json& row) {
        const auto classes = row.at(2).get<std::vector<std::string>>();
        EXPECT_NEAR(classification_score(prediction, truth, classes), row.at(3).get<double>(), tolerance);
    });
}

TEST(AnswerMetrics, NumbersScoreAsPublished) {
    for_each_pair("counts", 40, [](const auto& prediction, const auto& truth, const core::Json& row) {
        EXPECT_NEAR(count_score(prediction, truth), row.at(2).get<double>(), tolerance);
    });
    for_each_pair("retrieval", 40, [](const auto& prediction, const auto& truth, const core::Json& row) {
        EXPECT_NEAR(retrieval_score(prediction, truth, "Paragraph "), row.at(2).get<double>(), tolerance);
    });
    for_each_pair("retrieval_zh", 40, [](const auto& prediction, const auto& truth, const core::Json& row) {
        EXPECT_NEAR(retrieval_score(prediction, truth, "段落"), row.at(2).get<double>(), tolerance);
    });
}

TEST(AnswerMetrics, AnAnswerWithoutAParagraphIsAnError) {
    EXPECT_THROW(retrieval_score("Paragraph 1", "Paragraph", "Paragraph "), core::Error);
}

TEST(AnswerMetrics, AClassBehindARemovedOneIsPassedOver) {
    const std::vector<std::string> classes{"Da", "at", "Date"};  // both are parts of the truth, one is removed
    EXPECT_EQ(classification_score("Date", "Date", classes), 0.5);
}

TEST(AnswerMetrics, TheFirstLineIsBehindEmptyOnes) {
    EXPECT_EQ(first_line("\n\na b\nc"), "a b");
    EXPECT_EQ(first_line("\n"), "");
}

TEST(AnswerMetrics, JiebaCutsTheSame) {
    const char* const folder = std::getenv("MHA2MLA_JIEBA");
    if (folder == nullptr) GTEST_SKIP() << "MHA2MLA_JIEBA names no folder of the PyPI package jieba";
    const ChineseWords words{std::string(folder)};
    for (const auto& row : published().at("chinese")) {
        for (const auto& pieces : row.at(0)) {
            std::string text;
            for (const auto& piece : pieces) text += piece.get<std::string>();
            EXPECT_EQ(words.cut(text), pieces.get<std::vector<std::string>>()) << text;
        }
    }
}

}  // namespace
}  // namespace mha2mla::eval
