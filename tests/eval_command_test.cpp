// `mha2mla eval` as users run it, on a tiny model: what it prints, what it keeps, what it refuses.

#include <algorithm>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "run_program.h"

namespace mha2mla::tests {
namespace {

using testing::HasSubstr;

const std::string model = fixture_model("tiny-text");

constexpr const char* piqa_rows = R"({"goal": "the cat", "sol1": "sat on the mat", "sol2": "ran", "label": 0}
{"goal": "a dog", "sol1": "ran", "sol2": "sat", "label": 1}
{"goal": "the mat", "sol1": "is here", "sol2": "is not here", "label": 0}
)";

class EvalCommandTest : public testing::Test {
protected:
    std::string file(const std::string& name, const std::string& text) const {
        std::ofstream(folder_ / name) << text;
        return folder_ / name;
    }
    /// 40 times a line.
    std::string text() const {
        std::string text;
        for (int i = 0; i < 40; ++i) text += "the cat sat on the mat.\n";
        return file("text.txt", text);
    }

    TemporaryDirectory folder_;
};

TEST_F(EvalCommandTest, ChoicesGiveAccuraciesAndATable) {
    const std::vector<std::string> arguments{"eval", model, "--task", "piqa", "--data", file("piqa.jsonl", piqa_rows)};
    auto json = arguments;
    json.push_back("--json");
    const auto object = run(json).json();
    EXPECT_EQ(object["questions"], 3);
    EXPECT_EQ(object["tasks"][0]["task"], "piqa");
    EXPECT_EQ(object["score"], object["tasks"][0]["accuracy_norm"]);
    EXPECT_EQ(object["tasks"][0]["file"], arguments[5]);
    EXPECT_THAT(run(arguments).out,
                testing::AllOf(HasSubstr("| piqa | 3 |"), HasSubstr("| piqa.jsonl |\n"), HasSubstr("\nbf16 cache, ")));
    json.insert(json.end(), {"--limit", "2"});
    EXPECT_EQ(run(json).json()["questions"], 2);
}

TEST_F(EvalCommandTest, AKilledRunGoesOnFromItsResults) {
    const auto results = folder_ / "results.jsonl";
    file("piqa.jsonl", piqa_rows);
    const std::string data = std::filesystem::path(results).parent_path();  // where the results lie, too
    const std::vector<std::string> arguments{"eval", model,       "--task", "piqa",  "--data",
                                             data,   "--results", results,  "--json"};
    const auto whole = run(arguments).json();
    const std::string text = core::read_text(results);
    const auto third = text.find("piqa/2");
    ASSERT_NE(third, std::string::npos);
    std::ofstream(results) << text.substr(0, third);  // torn
    const auto again = run(arguments).json();
    EXPECT_EQ(again["tasks"][0]["accuracy"], whole["tasks"][0]["accuracy"]);
    const std::string continued = core::read_text(results);
    EXPECT_TRUE(continued.starts_with(text.substr(0, third))) << "what was finished stays";
    EXPECT_EQ(std::ranges::count(continued, '\n'), 4);
    auto other = arguments;
    other.insert(other.end(), {"--kv-cache", "int8"});
    EXPECT_THAT(run(other).err, testing::AllOf(HasSubstr("another run"), HasSubstr(results)));
    file("another.jsonl", "beside the data");
    EXPECT_EQ(run(arguments).json()["tasks"][0]["accuracy"], whole["tasks"][0]["accuracy"]);
}

TEST_F(EvalCommandTest, ResultsOfARewrittenFileAreNotTakenForItsOwn) {
    const std::string results = folder_ / "results.jsonl";
    const std::vector<std::string> arguments{
        "eval", model, "--task", "piqa", "--data", file("piqa.jsonl", piqa_rows), "--results", results};
    EXPECT_EQ(run(arguments).exit_code, 0);
    file("piqa.jsonl", std::string(piqa_rows) + piqa_rows);
    EXPECT_THAT(run(arguments).err, HasSubstr("another run"));
    file("piqa.jsonl", piqa_rows);
    auto in_folder = arguments;
    in_folder[5] = folder_.path().string();
    std::filesystem::remove(results);
    EXPECT_EQ(run(in_folder).exit_code, 0);
    file("piqa.jsonl", std::string(piqa_rows) + piqa_rows);
    EXPECT_THAT(run(in_folder).err, HasSubstr("another run"));
}

TEST_F(EvalCommandTest, QuestionsBeyondTheContextAreCountedAndNamed) {
    std::string rows = piqa_rows, goal;
    for (int i = 0; i < 200; ++i) goal += "the cat ";
    rows += R"({"goal": ")" + goal +
            R"(", "sol1": "a", "sol2": "b", "label": 0})"
            "\n";
    const auto outcome = run({"eval", model, "--task", "piqa", "--data", file("piqa.jsonl", rows), "--json"});
    EXPECT_EQ(outcome.json()["tasks"][0]["left_out"], 1);
    EXPECT_THAT(outcome.json()["left_out"][0].get<std::string>(), HasSubstr(", line 4"));
    EXPECT_EQ(outcome.json()["questions"], 3);
    EXPECT_THAT(outcome.err, HasSubstr("1 of 4 rows is left out"));
}

TEST_F(EvalCommandTest, AModelIsFaithfulToItselfAndLessSoWithAQuantizedCache) {
    const std::vector<std::string> arguments{"eval",   model,  "--task",   "fidelity", "--against", model,
                                             "--text", text(), "--window", "128",      "--json"};
    const auto itself = run(arguments).json();
    EXPECT_EQ(itself["mean_kl"], 0);
    EXPECT_EQ(itself["same_top"], 1);
    EXPECT_GT(itself["tokens"], 0);
    auto quantized = arguments;
    quantized.insert(quantized.end(), {"--kv-cache", "int2"});
    EXPECT_GT(run(quantized).json()["mean_kl"], 0);
}

TEST_F(EvalCommandTest, LlamaCppsConventionCountsTheSecondHalf) {
    const auto object = run({"eval", model, "--text", text(), "--convention", "llama.cpp", "--window", "64",
                             "--windows", "2", "--json"})
                            .json();
    EXPECT_EQ(object["tokens"], 2 * (64 - 32 - 1));
    EXPECT_GT(object["standard_error"], 0);
}

TEST_F(EvalCommandTest, AStrideCountsEachTokenOnce) {
    const auto object =
        run({"eval", model, "--text", text(), "--window", "64", "--stride", "16", "--windows", "3", "--json"}).json();
    EXPECT_EQ(object["tokens"], 63 + 2 * 16);
}

struct Refused {
    std::string name;
    std::vector<std::string> arguments;
    std::vector<std::string> message;
};

void PrintTo(const Refused& refused, std::ostream* out) { *out << refused.name; }

class EvalRefuses : public testing::TestWithParam<Refused> {};

TEST_P(EvalRefuses, InOneLine) {
    std::vector<std::string> arguments{"eval", model};
    arguments.insert(arguments.end(), GetParam().arguments.begin(), GetParam().arguments.end());
    const auto outcome = run(arguments);
    EXPECT_NE(outcome.exit_code, 0);
    EXPECT_EQ(outcome.out, "");
    for (const auto& part : GetParam().message) EXPECT_THAT(outcome.err, HasSubstr(part));
}

const std::string config_file = model + "/config.json";

INSTANTIATE_TEST_SUITE_P(
    EvalCommand, EvalRefuses,
    testing::Values(
        Refused{"UnknownTask", {"--task", "trivia"}, {"--task", "trivia"}},
        Refused{"PerplexityWithoutText", {}, {"perplexity needs --text"}},
        Refused{"FidelityWithoutSource", {"--task", "fidelity", "--text", config_file}, {"--against"}},
        Refused{"ChoicesWithoutData", {"--task", "piqa"}, {"piqa needs --data"}},
        Refused{"ContextBeyondTheModel", {"--task", "piqa", "--data", config_file, "--context", "999"}, {"--context"}},
        Refused{"FileOfAnotherBenchmark", {"--task", "piqa", "--data", config_file}, {"config.json, line 1"}},
        Refused{"FolderWithoutTheBenchmark", {"--task", "commonsense", "--data", model}, {"mmlu_validation.jsonl"}},
        Refused{"StrideOfAnotherTask", {"--task", "piqa", "--data", "x", "--stride", "3"}, {"--stride", "piqa"}},
        Refused{"StrideBeyondTheWindow", {"--text", config_file, "--window", "16", "--stride", "17"}, {"stride"}},
        Refused{"StrideInLlamaCppsConvention",
                {"--text", config_file, "--stride", "3", "--convention", "llama.cpp"},
                {"--stride"}}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace mha2mla::tests
