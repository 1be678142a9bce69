#include "eval/longbench.h"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/test_support.h"

namespace mha2mla::eval {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class LongBenchTest : public testing::Test {
protected:
    void SetUp() override {
        fs::create_directories(folder_ / "longbench-config");
        write(
            "longbench-config/dataset2prompt.json",
            R"({"qasper": "Read {context}\n{{Q}}: {input}", "trec": "{context}", "passage_retrieval_en": "{input}"})");
        write("longbench-config/dataset2maxlen.json", R"({"qasper": 128, "trec": 64, "passage_retrieval_en": 32})");
    }
    void write(const std::string& name, const std::string& content) { std::ofstream(folder_ / name) << content; }
    LongBenchData read(const char* dataset, int limit = 0) {
        return read_longbench(folder_, longbench_task(dataset), limit);
    }
    std::string error_of(const char* dataset) {
        try {
            read(dataset);
        } catch (const core::Error& error) {
            return error.what();
        }
        return "no error";
    }

    core::test::TemporaryDirectory directory_;
    fs::path folder_ = directory_.path();
};

constexpr const char* good_row =
    R"({"input": "who?", "context": "a {input}", "answers": ["I", "me"], "all_classes": null})";

TEST(LongBench, HasTheTasksOfItsPublishedFiles) {
    const fs::path config = fs::path(MHA2MLA_SHARED_DATA) / "eval/longbench-config/dataset2maxlen.json";
    if (!fs::exists(config)) GTEST_SKIP() << config << " is not there";
    const auto lengths = core::parse_json(core::read_text(config), config.string());
    std::set<std::string> published, ours;
    for (const auto& item : lengths.items()) published.insert(item.key());
    for (const auto& task : longbench_tasks()) ours.insert(std::string(task.dataset));
    EXPECT_EQ(ours, published);
    EXPECT_EQ(longbench_tasks().size(), 21u);
}

TEST(LongBench, FewShotAndCodePromptsAreNoMessages) {
    std::set<std::string_view> plain;
    for (const auto& task : longbench_tasks()) {
        if (!task.chats) plain.insert(task.dataset);
    }
    EXPECT_EQ(plain, (std::set<std::string_view>{"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}));
    EXPECT_TRUE(longbench_task("samsum").ends_at_newline);
    EXPECT_FALSE(longbench_task("trec").ends_at_newline);
    EXPECT_THROW(longbench_task("squad"), core::Error);
}

TEST_F(LongBenchTest, RowsFillThePromptOnce) {
    write("longbench-qasper.jsonl", good_row + std::string("\n\n") + good_row + "\n");
    const auto data = read("qasper");
    EXPECT_EQ(data.max_tokens, 128);
    ASSERT_EQ(data.rows.size(), 2u);
    EXPECT_EQ(data.rows[0].prompt, "Read a {input}\n{Q}: who?") << "what a row says is no format";
    EXPECT_THAT(data.rows[1].answers, ElementsAre("I", "me"));
    EXPECT_EQ(data.rows[1].id, "qasper/2");
    EXPECT_EQ(read("qasper", 1).rows.size(), 1u);
    EXPECT_THAT(longbench_tasks_in(folder_), ElementsAre(&longbench_task("qasper")));
}

TEST_F(LongBenchTest, DamagedRowsAreLeftOutAndNamed) {
    write("qasper.jsonl", std::string(good_row) +
                              "\n{\"input\": \"no context\", \"answers\": [\"x\"]}\n"
                              "{\"input\": \"\", \"context\": \"\", \"answers\": [3]}\n"
                              "{\"input\": \"\", \"context\": \"\", \"answers\": []}\nnot json\n[]\n");
    const auto data = read("qasper");
    EXPECT_EQ(data.rows.size(), 1u);
    EXPECT_THAT(data.left_out, ElementsAre(AllOf(HasSubstr("qasper.jsonl, line 2"), HasSubstr("'context' is missing")),
                                           AllOf(HasSubstr("line 3"), HasSubstr("answers")),
                                           AllOf(HasSubstr("line 4"), HasSubstr("answers")),
                                           AllOf(HasSubstr("line 5"), HasSubstr("JSON")), HasSubstr("line 6")));
}

TEST_F(LongBenchTest, WhatCannotBeScoredIsLeftOut) {
    write("trec.jsonl",
          "{\"context\": \"\", \"answers\": [\"x\"], \"all_classes\": [\"x\"]}\n"
          "{\"context\": \"\", \"answers\": [\"x\"]}\n");
    EXPECT_THAT(read("trec").left_out, ElementsAre(AllOf(HasSubstr("line 2"), HasSubstr("all_classes"))));
    write("passage_retrieval_en.jsonl",
          "{\"input\": \"\", \"answers\": [\"Paragraph 3\"]}\n{\"input\": \"\", \"answers\": [\"three\"]}\n");
    EXPECT_THAT(read("passage_retrieval_en").left_out, ElementsAre(HasSubstr("names no paragraph")));
}

TEST_F(LongBenchTest, ASummaryThatCannotBeComparedIsLeftOut) {
    write("dataset2prompt.json", R"({"qmsum": "{context}", "vcsum": "{context}"})");
    write("dataset2maxlen.json", R"({"qmsum": 8, "vcsum": 8})");
    const auto left_out = [&](const char* dataset, const std::string& word) {
        std::string endless;
        for (int i = 0; i < 20'000; ++i) endless += word;
        write(std::string(dataset) + ".jsonl",
              std::string(good_row) + "\n" + core::Json{{"context", ""}, {"answers", {endless}}}.dump() + "\n");
        return read(dataset).left_out;
    };
    EXPECT_THAT(left_out("qmsum", "word "), ElementsAre(AllOf(HasSubstr("line 2"), HasSubstr("at most 16384 words"))));
    EXPECT_THAT(left_out("vcsum", "会"), ElementsAre(HasSubstr("line 2")));
    EXPECT_THAT(left_out("qmsum", "end. "), ElementsAre()) << "many sentences are no long one";
}

TEST_F(LongBenchTest, AFileOfAnotherDatasetIsAnError) {
    write("qasper.jsonl", R"({"input": "", "context": "", "answers": ["x"], "dataset": "trec"})");
    EXPECT_THAT(error_of("qasper"), AllOf(HasSubstr("qasper.jsonl, line 1"), HasSubstr("trec")));
}

TEST_F(LongBenchTest, MissingFilesAreErrors) {
    EXPECT_THAT(error_of("qasper"), HasSubstr("qasper.jsonl"));
    EXPECT_THROW(longbench_tasks_in(folder_), core::Error);
    write("qasper.jsonl", "{}\n");
    EXPECT_THAT(error_of("qasper"), AllOf(HasSubstr("no row"), HasSubstr("'context' is missing")));
    write("lcc.jsonl", good_row);
    EXPECT_THAT(error_of("lcc"), AllOf(HasSubstr("dataset2prompt.json"), HasSubstr("'lcc' is missing")));
    fs::remove_all(folder_ / "longbench-config");
    EXPECT_THAT(error_of("qasper"), HasSubstr("dataset2prompt.json"));
}

TEST_F(LongBenchTest, ABraceWithoutPartnerIsNamed) {
    write("dataset2prompt.json", R"({"qasper": "{context"})");
    write("qasper.jsonl", good_row);
    write("dataset2maxlen.json", R"({"qasper": 1})");
    EXPECT_THAT(error_of("qasper"), HasSubstr("brace"));
}

TEST(LongBenchScorer, TakesTheBestAnswerOfTheFirstLine) {
    LongBenchScorer scorer("");
    const LongBenchRow row{.id = "", .prompt = "", .answers = {"blue", "green sea"}, .classes = {}};
    EXPECT_EQ(scorer.score(longbench_task("triviaqa"), "\ngreen sea\nPassage: more", row), 1.0);
    EXPECT_LT(scorer.score(longbench_task("hotpotqa"), "\ngreen sea\nPassage: more", row), 1.0);
}

TEST(LongBenchScorer, ChineseNeedsADictionary) {
    LongBenchScorer scorer("");
    try {
        scorer.check(longbench_task("vcsum"));
        FAIL() << "no error";
    } catch (const core::Error& error) {
        EXPECT_THAT(error.what(), AllOf(HasSubstr("vcsum"), HasSubstr("--jieba"), HasSubstr("pip install")));
    }
    scorer.check(longbench_task("lsht"));  // its classes are compared without words
}

TEST(TruncateMiddle, KeepsBothHalves) {
    const auto words = tokenizer::load_tokenizer(
        {{"tokenizer.json", core::read_text(MHA2MLA_FIXTURES "/models/tiny-text/tokenizer.json")}}, "tiny-text");
    const std::string text = "the cat sat on the mat and the hen ran to the den";
    const auto tokens = words->encode(text, true);
    const auto all = std::span<const int>(tokens);
    const auto count = static_cast<int>(tokens.size());
    EXPECT_EQ(truncate_middle(text, count, *words), text);
    EXPECT_EQ(truncate_middle(text, 7, *words), words->decode(all.first(3)) + words->decode(all.last(3)));
}

}  // namespace
}  // namespace mha2mla::eval
