// `finetune` as a user runs it, on a tiny model: what it writes, what it refuses, and what an interruption leaves.

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "run_program.h"

namespace mha2mla::tests {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string source = fixture_model("tiny-text");

RunOptions processes(int count) {
    RunOptions options;
    options.processes = count;
    return options;
}

class FinetuneCommand : public testing::Test {
protected:
    void SetUp() override {
        ASSERT_EQ(
            run({"convert", source, converted, "--rope-pairs", "2", "--kv-rank", "8", "--dtype", "f32"}).exit_code, 0);
    }
    std::vector<std::string> command(const std::vector<std::string>& more = {}) const {
        std::vector<std::string> words{"finetune",       converted, "--teacher",       source,  "--out",      target,
                                       "--text",         text,      "--window",        "32",    "--held-out", "4",
                                       "--batch-tokens", "128",     "--learning-rate", "0.003", "--dtype",    "f32",
                                       "--json"};
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }

    /// Steps of the newest snapshot of an unfinished run; -1: there is none.
    int newest_snapshot() const {
        int newest = -1;
        std::error_code absent;
        for (const auto& entry : fs::directory_iterator(target + ".partial", absent)) {
            const auto name = entry.path().filename().string();
            if (name.starts_with("step-")) newest = std::max(newest, std::atoi(name.c_str() + 5));
        }
        return newest;
    }

    TemporaryDirectory directory;
    std::string converted = directory / "converted";
    std::string target = directory / "recovered";
    std::string text = source + "/config.json";
};

TEST_F(FinetuneCommand, MakesAConvertedModelPredictItsSourcesTextAgain) {
    const auto report = run(command({"--tokens", "6000"})).json();
    EXPECT_LT(report["perplexity_after"], report["perplexity_before"]);
    EXPECT_GE(report["tokens"], 6000);
    EXPECT_EQ(run({"generate", target, "-p", "the cat", "-n", "5", "--ignore-eos", "--json"}).json()["tokens"].size(),
              5u);
    const auto record = core::parse_json(core::read_text(target + "/finetune.json"), "finetune.json");
    EXPECT_THAT(record["command"].get<std::string>(), HasSubstr("--tokens 6000"));
}

TEST_F(FinetuneCommand, LearnsFromWhatTheTeacherWrites) {
    auto words = command({"--tokens", "1000", "--kv-format", "int4-c"});
    const auto at = std::find(words.begin(), words.end(), text);
    *at = "self";
    const auto report = run(words).json();
    EXPECT_GE(report["tokens"], 1000);
    const auto record = core::parse_json(core::read_text(target + "/finetune.json"), "finetune.json");
    EXPECT_THAT(record["text"].get<std::string>(), HasSubstr("sampled"));
    EXPECT_EQ(record["options"]["kv_format"], "int4-c");
}

/// With products in bf16 the source runs natively.
TEST_F(FinetuneCommand, LearnsInBf16AsInFloats) {
    const std::vector<std::string> tokens{"--tokens", "3000"};
    const auto exact = run(command(tokens)).json();
    fs::remove_all(target);
    const auto rounded = run(command({"--tokens", "3000", "--bf16"})).json();
    EXPECT_EQ(rounded["steps"], exact["steps"]);
    const auto after = exact["perplexity_after"].get<double>();
    EXPECT_LT(after, 0.9 * exact["perplexity_before"].get<double>());
    EXPECT_NEAR(rounded["perplexity_after"].get<double>(), after, 0.02 * after);
}

class FinetuneIn : public FinetuneCommand, public testing::WithParamInterface<std::string> {};

/// Killed at several moments, a run that goes on writes the weights of one that was never touched.
TEST_P(FinetuneIn, GoesOnAfterAKillBitForBit) {
    auto arguments = command({"--tokens", "20000", "--save-every", "0", "--threads", "1"});
    if (GetParam() == "bf16") arguments.emplace_back("--bf16");
    ASSERT_EQ(run(arguments).exit_code, 0);
    const auto expected = core::read_text(target + "/model.safetensors");
    fs::remove_all(target);
    auto resumed = arguments;
    resumed.emplace_back("--resume");
    for (const int step : {3, 40, 90}) {
        run_and_signal(step == 3 ? arguments : resumed, SIGKILL, [&] { return newest_snapshot() >= step; });
        ASSERT_FALSE(fs::exists(target)) << "the run was over before it could be killed";
    }
    ASSERT_EQ(run(resumed).exit_code, 0);
    EXPECT_EQ(core::read_text(target + "/model.safetensors"), expected);
}

INSTANTIATE_TEST_SUITE_P(Precisions, FinetuneIn, testing::Values("floats", "bf16"),
                         [](const auto& test) { return test.param; });

/// The same windows, shared out, and the same steps.
TEST_F(FinetuneCommand, ProcessesTogetherDoTheSame) {
    if (!has_mpi()) GTEST_SKIP() << "this build has no MPI";
    const auto arguments = command({"--tokens", "2000", "--threads", "1"});
    const auto alone = run(arguments).json();
    fs::remove_all(target);
    const auto together = run(arguments, processes(3)).json();
    EXPECT_EQ(together["steps"], alone["steps"]);
    EXPECT_EQ(together["perplexity_before"], alone["perplexity_before"]);
    EXPECT_NEAR(together["perplexity_after"], alone["perplexity_after"],
                1e-5 * alone["perplexity_after"].get<double>());
}

TEST_F(FinetuneCommand, OneOfSeveralProcessesThatFailsEndsAll) {
    if (!has_mpi()) GTEST_SKIP() << "this build has no MPI";
    fs::create_directories(target + ".partial/log.jsonl.new");  // where the first one writes its log
    const auto outcome = run(command({"--tokens", "100", "--resume"}), processes(2));
    EXPECT_NE(outcome.exit_code, 0);
    EXPECT_THAT(outcome.err, HasSubstr("log.jsonl"));
}

TEST_F(FinetuneCommand, LearnsFromFewTokensOfALongText) {
    EXPECT_GE(run(command({"--tokens", "10"})).json()["tokens"], 10);
}

TEST_F(FinetuneCommand, SaysWhatIsWrongAndWhatToDo) {
    const auto refused = [&](const std::vector<std::string>& more, const std::string& held_out = "4") {
        auto words = command(more);
        *(std::find(words.begin(), words.end(), "--held-out") + 1) = held_out;
        const auto outcome = run(words);
        EXPECT_NE(outcome.exit_code, 0);
        EXPECT_FALSE(fs::exists(target));
        return outcome.err;
    };
    EXPECT_THAT(refused({}), HasSubstr("--tokens"));
    EXPECT_THAT(refused({"--tokens", "100", "--objective", "layer"}), HasSubstr("--objective"));
    EXPECT_THAT(refused({"--tokens", "100", "--kv-format", "int3"}), HasSubstr("--kv-format"));
    EXPECT_THAT(refused({"--tokens", "100", "--kv-format", "kivi4"}), HasSubstr("--kv-format"));
    EXPECT_THAT(refused({"--tokens", "100", "--text", directory / "nowhere.txt"}), HasSubstr("nowhere.txt"));
    EXPECT_THAT(refused({"--tokens", "100", "--window", "4096"}), HasSubstr("--window"));
    EXPECT_THAT(refused({"--tokens", "100"}, "5000"), HasSubstr("too short"));
    EXPECT_THAT(refused({"--tokens", "100", "--train", "everything"}), HasSubstr("--train"));
}

}  // namespace
}  // namespace mha2mla::tests
