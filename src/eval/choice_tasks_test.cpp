#include "eval/choice_tasks.h"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "core/test_support.h"
#include "eval/choice_rows.h"

namespace mha2mla::eval {
namespace {

using testing::HasSubstr;

ChoiceQuestion ask(ChoiceQuestion (*read)(const core::JsonObject&), const std::string& row) {
    const auto json = core::parse_json(row, "row");
    return read(core::JsonObject(json, "row"));
}

std::string message_of(ChoiceQuestion (*read)(const core::JsonObject&), const std::string& row) {
    try {
        ask(read, row);
    } catch (const core::Error& error) {
        return error.what();
    }
    return "no error";
}

TEST(ChoiceRows, ArcNamesItsAnswersByLetterOrNumber) {
    const auto question =
        ask(read_arc,
            R"({"question": "Why?", "choices": {"text": ["so", "zögernd"], "label": ["1", "2"]}, "answerKey": "2"})");
    ASSERT_EQ(question.choices.size(), 2u);
    EXPECT_EQ(question.choices[0].context, "Question: Why?\nAnswer:");
    EXPECT_EQ(question.choices[1].continuation, " zögernd");
    EXPECT_EQ(question.choices[1].characters, 7u) << "code points, not bytes";
    EXPECT_EQ(question.answer, 1u);
}

TEST(ChoiceRows, WinograndeAsksForTheRestBehindEachOption) {
    const auto question =
        ask(read_winogrande, R"({"sentence": "A _ is big .", "option1": "cat", "option2": "cow", "answer": "2"})");
    EXPECT_EQ(question.choices[0].context, "A cat");
    EXPECT_EQ(question.choices[1].context, "A cow");
    EXPECT_EQ(question.choices[1].continuation, " is big .");
    EXPECT_EQ(question.answer, 1u);
}

TEST(ChoiceRows, HellaswagIsCleanedOfWikiHow) {
    const auto question =
        ask(read_hellaswag, R"({"activity_label": "Cooking", "ctx_a": "[header] How to cook [title] Boil.",
        "ctx_b": "then He", "endings": [" [step] eats.  Well [open", "x"], "label": "0"})");
    EXPECT_EQ(question.choices[0].context, "Cooking: How to cook. Boil. Then he");
    EXPECT_EQ(question.choices[0].continuation, "  eats. Well [open") << "lm-eval strips first, then removes brackets";
}

/// tools/make_hellaswag_fixture.py
TEST(ChoiceRows, HellaswagIsReadAsByTheHarness) {
    const std::string path = MHA2MLA_FIXTURES "/eval/hellaswag_rows.json";
    const auto expected = core::parse_json(core::read_text(path), path);
    ASSERT_EQ(expected["rows"].size(), 5u);
    for (std::size_t i = 0; i < expected["rows"].size(); ++i) {
        const auto question = ask(read_hellaswag, expected["rows"][i].dump());
        ASSERT_EQ(question.choices.size(), expected["choices"][i].size());
        for (std::size_t c = 0; c < question.choices.size(); ++c) {
            EXPECT_EQ(question.choices[c].context, expected["query"][i].get<std::string>());
            EXPECT_EQ(question.choices[c].continuation, " " + expected["choices"][i][c].get<std::string>());
        }
        EXPECT_EQ(question.answer, expected["gold"][i].get<std::size_t>());
    }
}

TEST(ChoiceRows, MultipleChoiceIsAskedForALetter) {
    const auto question = ask(read_mmlu, R"({"question": " 1+1? ", "subject": "abstract_algebra",
        "choices": ["1", "2", "3", "4"], "answer": 1})");
    EXPECT_EQ(question.choices[1].context, "1+1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
    EXPECT_EQ(question.choices[1].continuation, " B");
    EXPECT_EQ(question.answer, 1u);
}

TEST(ChoiceRows, RowsOfAnotherBenchmarkAreNamed) {
    EXPECT_THAT(message_of(read_piqa, R"({"question": "x", "label": 0})"), HasSubstr("'goal'"));
    EXPECT_THAT(message_of(read_piqa, R"({"goal": "x", "sol1": "a", "sol2": "b", "label": 2})"), HasSubstr("'label'"));
    EXPECT_THAT(
        message_of(read_winogrande, R"({"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"})"),
        HasSubstr("'sentence'"));
    EXPECT_THAT(
        message_of(read_arc, R"({"question": "x", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"})"),
        HasSubstr("'label'"));
    EXPECT_THAT(message_of(read_arc, R"({"question": "x", "choices": {"text": ["a", "b"], "label": ["A", "B"]},
                                         "answerKey": "C"})"),
                HasSubstr("'answerKey'"));
    EXPECT_THAT(message_of(read_mmlu, R"({"question": "x", "subject": "s", "choices": ["a"], "answer": 0})"),
                HasSubstr("'choices'"));
}

class ChoiceFiles : public testing::Test {
protected:
    void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }

    core::test::TemporaryDirectory directory_;
    std::filesystem::path folder_ = directory_.path();
};

constexpr const char* mmlu_row =
    R"({"question": "QUESTION", "subject": "SUBJECT", "choices": ["1", "2", "3", "4"], "answer": 1})";

std::string mmlu(std::string question, const std::string& subject) {
    std::string row = mmlu_row;
    row.replace(row.find("QUESTION"), 8, question);
    return row.replace(row.find("SUBJECT"), 7, subject) + "\n";
}

std::string five_examples(const std::string& subject) {
    std::string examples;
    for (int i = 0; i < 5; ++i) examples += mmlu("o", subject);
    return examples;
}

TEST_F(ChoiceFiles, MmluStandsBehindFiveExamplesOfItsSubject) {
    write("mmlu_validation.jsonl", mmlu("a", "high_school") + mmlu("b", "other"));
    std::string examples = mmlu("o", "other");
    for (int i = 0; i < 8; ++i) examples += mmlu("e" + std::to_string(i), "high_school");
    write("mmlu_dev.jsonl", examples);
    const auto questions = read_questions(*find_choice_task("mmlu"), folder_, 0).questions;
    const std::string context = questions.at(0).choices[0].context;
    EXPECT_TRUE(
        context.starts_with("The following are multiple choice questions (with answers) about high school.\n\n"
                            "e0\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\ne1\n"))
        << context;
    EXPECT_THAT(context, HasSubstr("e4"));
    EXPECT_THAT(context, testing::Not(testing::AnyOf(HasSubstr("e5"), HasSubstr("e6"), HasSubstr("e7"))));
    EXPECT_TRUE(context.ends_with("Answer: B\n\na\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:")) << context;
    EXPECT_EQ(read_questions(*find_choice_task("mmlu"), folder_, 1).questions.size(), 1u);
}

TEST_F(ChoiceFiles, ASubjectWithTooFewExamplesIsLeftOut) {
    write("mmlu_validation.jsonl", mmlu("a", "high_school") + mmlu("b", "other") + mmlu("c", "anatomy"));
    write("mmlu_dev.jsonl", five_examples("other") + mmlu("o", "anatomy"));
    const auto rows = read_questions(*find_choice_task("mmlu"), folder_, 0);
    ASSERT_EQ(rows.questions.size(), 1u);
    EXPECT_EQ(rows.questions[0].id, "1");
    EXPECT_EQ(rows.files, (std::vector{folder_ / "mmlu_validation.jsonl", folder_ / "mmlu_dev.jsonl"}));
    EXPECT_THAT(rows.left_out, testing::ElementsAre(HasSubstr("line 1: its subject 'high_school' has 0 of 5 examples"),
                                                    HasSubstr("line 3: its subject 'anatomy' has 1 of 5 examples")));
}

TEST_F(ChoiceFiles, FilesThatLackAreNamed) {
    const auto message = [&](const char* task, const std::filesystem::path& data) -> std::string {
        try {
            read_questions(*find_choice_task(task), data, 0);
        } catch (const core::Error& error) {
            return error.what();
        }
        return "no error";
    };
    EXPECT_THAT(message("piqa", folder_), HasSubstr("piqa.jsonl"));
    write("mmlu_validation.jsonl", mmlu("a", "high_school"));
    EXPECT_THAT(message("mmlu", folder_),
                testing::AllOf(HasSubstr("mmlu_dev.jsonl"), HasSubstr("beside the questions")));
    write("mmlu_dev.jsonl", mmlu("a", "high_school"));
    EXPECT_THAT(message("mmlu", folder_ / "mmlu_dev.jsonl"), HasSubstr("mmlu_validation.jsonl"))
        << "examples are no questions";
    write("mmlu_dev.jsonl", mmlu("a", "high_school") + "{}\n");
    EXPECT_THAT(message("mmlu", folder_), testing::AllOf(HasSubstr("worked example"), HasSubstr("line 2")));
    write("arc_challenge.jsonl", "");
    EXPECT_THAT(message("arc-easy", folder_ / "arc_challenge.jsonl"), HasSubstr("--task arc-challenge"));
}

TEST_F(ChoiceFiles, ExamplesLieBesideAFileThatIsNamedWithoutItsFolder) {
    write("mmlu_validation.jsonl", mmlu("a", "other"));
    write("mmlu_dev.jsonl", five_examples("other"));
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(folder_);
    const auto questions = read_questions(*find_choice_task("mmlu"), "mmlu_validation.jsonl", 0).questions;
    std::filesystem::current_path(before);
    EXPECT_THAT(questions.at(0).choices[0].context, HasSubstr("o\nA. 1"));
}

TEST_F(ChoiceFiles, RowsThatCannotBeUsedAreNamedAndTheOthersKeepTheirNumbers) {
    const std::string row = R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 1})";
    write("piqa.jsonl", row + "\n" + R"({"goal": "g", "label": 1})" + "\n{broken\n" + row + "\n");
    const auto rows = read_questions(*find_choice_task("piqa"), folder_, 0);
    ASSERT_EQ(rows.questions.size(), 2u);
    EXPECT_EQ(rows.questions[1].id, "3");
    ASSERT_EQ(rows.left_out.size(), 2u);
    EXPECT_THAT(rows.left_out[0], testing::AllOf(HasSubstr("line 2"), HasSubstr("'sol1'")));
    EXPECT_THAT(rows.left_out[1], HasSubstr("line 3"));
}

TEST_F(ChoiceFiles, AFileOfAnotherBenchmarkIsRefused) {
    write("piqa.jsonl", mmlu("a", "other"));
    EXPECT_THROW(read_questions(*find_choice_task("piqa"), folder_, 0), core::Error);
    write(
        "arc.jsonl",
        R"({"question": "x", "question_concept": "c", "answerKey": "A", "choices": {"text": ["a", "b"], "label": ["A", "B"]}})");
    EXPECT_THROW(read_questions(*find_choice_task("arc-easy"), folder_ / "arc.jsonl", 0), core::Error);
}

TEST_F(ChoiceFiles, RequestsAreGroupedByDocument) {
    const std::string first = R"("request": {"context": "c", "continuation": " long"}, "label": 1)";
    const std::string second = R"("request": {"context": "c", "continuation": " b"}, "label": 1)";
    write("requests.jsonl", R"({"doc_id": 7, "idx": 0, "doc": {"choices": ["x", "yy"]}, )" + first + "}\n" +
                                R"({"doc_id": 7, "idx": 1, "doc": {"choices": ["x", "yy"]}, )" + second + "}\n" +
                                R"({"doc_id": 8, "idx": 0, )" + first + "}\n" + R"({"doc_id": 8, "idx": 1, )" + second +
                                "}\n");
    const auto questions = read_requests(folder_ / "requests.jsonl", 0).questions;
    ASSERT_EQ(questions.size(), 2u);
    EXPECT_EQ(questions[0].choices[1].characters, 2u) << "of the document's choice";
    EXPECT_EQ(questions[1].choices[0].characters, 5u) << "of the continuation";
    EXPECT_EQ(questions[1].answer, 1u);
    EXPECT_EQ(read_requests(folder_ / "requests.jsonl", 1).questions.size(), 1u);
}

TEST_F(ChoiceFiles, RequestsOfAnotherBenchmarkAreRefused) {
    const auto line = [](const std::string& task, int index) {
        return core::Json{{"doc_id", 1},
                          {"idx", index},
                          {"label", 0},
                          {"task_name", task},
                          {"request", {{"context", "c"}, {"continuation", " a"}}}}
                   .dump() +
               "\n";
    };
    write("requests.jsonl", line("arc_easy:mc", 0) + line("arc_easy:mc", 1));
    const auto read = [&](const char* task) {
        return read_questions(*find_choice_task(task), folder_ / "requests.jsonl", 0).questions.size();
    };
    EXPECT_EQ(read("arc-easy"), 1u);
    EXPECT_THROW(read("piqa"), core::Error);
    EXPECT_EQ(read_requests(folder_ / "requests.jsonl", 0).questions.size(), 1u);
    const auto fits = [&](const char* task, const std::string& name) {
        write("requests.jsonl", line(name, 0) + line(name, 1));
        try {
            return read(task) == 1;
        } catch (const core::Error&) {
            return false;
        }
    };
    EXPECT_TRUE(fits("mmlu", "mmlu_high_school"));
    EXPECT_TRUE(fits("commonsenseqa", "csqa"));
    EXPECT_FALSE(fits("piqa", "piqa_ar"));
    EXPECT_FALSE(fits("mmlu", "mmluish"));
}

TEST_F(ChoiceFiles, ALastQuestionThatIsCutOffIsLeftOut) {
    const auto line = [](int question, int index, core::Json document) {
        return core::Json{{"doc_id", question},
                          {"idx", index},
                          {"label", 0},
                          {"doc", std::move(document)},
                          {"request", {{"context", "c"}, {"continuation", " a"}}}}
                   .dump() +
               "\n";
    };
    const auto left_out = [&](const std::string& text) {
        write("requests.jsonl", text);
        return read_requests(folder_ / "requests.jsonl", 0).left_out;
    };
    const core::Json two{{"choices", {"x", "y"}}}, three{{"choices", {"x", "y", "z"}}};
    const std::string whole = line(1, 0, two) + line(1, 1, two);
    EXPECT_THAT(left_out(whole), testing::IsEmpty());
    EXPECT_THAT(left_out(whole + line(2, 0, three) + line(2, 1, three)),
                testing::ElementsAre(HasSubstr("before the question's last choices")));
    EXPECT_THAT(left_out(whole + line(2, 0, nullptr)), testing::SizeIs(1));
    EXPECT_THAT(read_requests(folder_ / "requests.jsonl", 1).left_out, testing::IsEmpty()) << "it was not to be read";
    EXPECT_THROW(left_out(line(0, 0, two) + whole), core::Error) << "in the middle";
    EXPECT_THAT(left_out(line(1, 0, nullptr) + line(1, 1, nullptr) + line(2, 0, nullptr) + line(2, 1, nullptr)),
                testing::IsEmpty());
}

TEST_F(ChoiceFiles, RequestsOutOfOrderOrWithoutTheRightChoiceAreRefused) {
    const std::string request = R"("request": {"context": "c", "continuation": " b"})";
    write("a.requests.jsonl", R"({"doc_id": 7, "idx": 1, "label": 0, )" + request + "}\n");
    EXPECT_THROW(read_requests(folder_ / "a.requests.jsonl", 0), core::Error);
    write("b.requests.jsonl", R"({"doc_id": 7, "idx": 0, "label": 3, )" + request + "}\n");
    EXPECT_THROW(read_requests(folder_ / "b.requests.jsonl", 0), core::Error);
    write("d.requests.jsonl",
          R"({"doc_id": 7, "idx": 0, "label": 0, "request_type": "generate_until", )" + request + "}\n");
    EXPECT_THROW(read_requests(folder_ / "d.requests.jsonl", 0), core::Error);
    write("e.requests.jsonl", R"({"doc_id": 7, "idx": 0, "label": 0, "doc": {"choices": ["b", "c"]}, )" + request +
                                  "}\n" + R"({"doc_id": 7, "idx": 1, "label": 0, )" + request + "}\n");
    EXPECT_THROW(read_requests(folder_ / "e.requests.jsonl", 0), core::Error) << "characters of another kind";
    write("c.requests.jsonl", R"({"doc_id": 7, "idx": 0, "label": 0, )" + request + "}\n" +
                                  R"({"doc_id": 7, "idx": 1, "label": 1, )" + request + "}\n");
    EXPECT_THROW(read_requests(folder_ / "c.requests.jsonl", 0), core::Error) << "two right choices";
}

TEST(Judge, TheLikeliestWinsAndTheNormIsByCharacters) {
    const ChoiceQuestion question{.choices = {{"c", " a", 1}, {"c", " long", 10}}, .answer = 1};
    const auto scores = judge(question, {-2, -4});
    EXPECT_FALSE(scores.right);
    EXPECT_TRUE(scores.right_norm);
    EXPECT_FALSE(judge(question, {-2, -2}).right) << "the first of equals counts";
}

}  // namespace
}  // namespace mha2mla::eval
