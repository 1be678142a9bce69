// `convert` as a user runs it, on a tiny model: what it writes, what it refuses, and what an interruption leaves.

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/file.h"
#include "run_program.h"

namespace mha2mla::tests {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string model = fixture_model("tiny-text");

TEST(ConvertCommand, WritesAModelThatEveryVerbRuns) {
    const TemporaryDirectory directory;
    const std::string target = directory / "mla";
    const auto report = run({"convert", model, target, "--rope-pairs", "2", "--kv-rank", "8", "--json"}).json();
    EXPECT_TRUE(report.is_object());

    const auto config = core::parse_json(core::read_text(target + "/config.json"), "config.json");
    EXPECT_EQ(config["model_type"], "mha2mla");
    EXPECT_EQ(config["mla"]["kv_lora_rank"], core::Json::array({16, 16}));
    for (const std::string file : {"conversion.json", "README.md", "model.safetensors", "tokenizer.json"}) {
        EXPECT_TRUE(fs::exists(fs::path(target) / file)) << file;
    }

    const auto inspected = run({"inspect", target, "--json"}).json();
    EXPECT_EQ(inspected["attention"], "mla");
    EXPECT_EQ(inspected["kv_cache"]["bytes_per_token_per_layer"],
              core::Json::array({48, 48}));  // (16 + 2 * 4) * 2 bytes
    EXPECT_EQ(run({"generate", target, "-p", "the cat", "-n", "5", "--ignore-eos", "--json"}).json()["tokens"].size(),
              5u);
}

TEST(ConvertCommand, ExactConversionGeneratesTheSameText) {
    const TemporaryDirectory directory;
    const std::string target = directory / "mla";
    ASSERT_EQ(run({"convert", model, target, "--rope-pairs", "8", "--factor", "none", "--dtype", "f32"}).exit_code, 0);
    const auto tokens_of = [](const std::string& path, const std::string& form) {
        return run({"generate", path, "-p", "the cat sat on", "-n", "16", "--ignore-eos", "--weights", "f32",
                    "--kv-cache", "f32", "--attention", form, "--json"})
            .json()["tokens"];
    };
    const auto expected = tokens_of(model, "auto");
    for (const std::string form : {"absorbed", "expanded"}) EXPECT_EQ(tokens_of(target, form), expected) << form;
}

class ConvertedModel : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(ConvertedModel, ScoresAlikeInBothEngines) {
    const TemporaryDirectory directory;
    const std::string target = directory / "mla";
    std::vector<std::string> arguments{"convert", model, target, "--calibration-windows", "2", "--calibration-window",
                                       "32"};
    arguments.insert(arguments.end(), GetParam().begin(), GetParam().end());
    ASSERT_EQ(run(arguments).exit_code, 0);
    const std::string text = std::string(MHA2MLA_FIXTURES) + "/models/tiny-text/config.json";
    const auto perplexity = [&](const std::string& engine) {
        std::vector<std::string> command{"eval",     target, "--text",    text,  "--window", "64",
                                         "--engine", engine, "--weights", "f32", "--json"};
        if (engine == "native") command.insert(command.end(), {"--kv-cache", "f32"});
        return run(command).json()["perplexity"].get<double>();
    };
    const double native = perplexity("native");
    EXPECT_NEAR(perplexity("workshop"), native, 1e-4 * native);
}

INSTANTIATE_TEST_SUITE_P(ConvertCommand, ConvertedModel,
                         testing::Values(std::vector<std::string>{"--select", "2-norm"},
                                         std::vector<std::string>{"--cache-ratio", "0.25"},
                                         std::vector<std::string>{"--sinks", "0", "--no-mean-key", "--no-compensate"},
                                         std::vector<std::string>{"--no-shared-rope", "--metric", "plain"},
                                         std::vector<std::string>{"--rope-components", "0", "--sinks", "8"},
                                         std::vector<std::string>{"--method", "transmla"},
                                         std::vector<std::string>{"--freqfold", "4", "--rope-components", "2",
                                                                  "--method", "transmla", "--balance-kv", "0.5"}));

TEST(ConvertCommand, AConvertedModelIsScoredWithAnEmulatedCache) {
    const TemporaryDirectory directory;
    const std::string target = directory / "mla";
    ASSERT_EQ(run({"convert", model, target, "--rope-pairs", "1", "--kv-rank", "6"}).exit_code, 0);
    const auto evaluate = [&](std::vector<std::string> options) {
        std::vector<std::string> arguments{"eval",     target,     "--text", model + "/config.json", "--window", "64",
                                           "--engine", "workshop", "--json"};
        arguments.insert(arguments.end(), options.begin(), options.end());
        return run(arguments).json();
    };
    const auto plain = evaluate({});
    const auto bf16 = evaluate({"--emulate-cache", "bf16"});
    const auto int2 = evaluate({"--emulate-cache", "int2"});
    EXPECT_EQ(bf16["perplexity"], plain["perplexity"]) << "bf16 weights make a bf16 cache";
    EXPECT_NE(int2["perplexity"], plain["perplexity"]);
    EXPECT_EQ(plain["kv_cache"]["bytes_per_token_per_layer"], core::Json::array({32, 32}));  // (2 * 6 + 2 * 2) * 2
    // The latent: 12 codes of 2 bits, scale and zero; the rotary keys: 4 codes of 8 bits, scale and zero.
    EXPECT_EQ(int2["kv_cache"]["bytes_per_token_per_layer"], core::Json::array({15, 15}));
    EXPECT_EQ(int2["kv_cache"]["format"], "int2");
    // By channel: 4 bytes of scale and zero for 64 tokens. A window is one page.
    const auto channels = evaluate({"--emulate-cache", "int2-c"});
    EXPECT_NE(channels["perplexity"], plain["perplexity"]);
    EXPECT_NE(channels["perplexity"], int2["perplexity"]);
    EXPECT_EQ(channels["kv_cache"]["format"], "int2-c");
}

TEST(ConvertCommand, SavedStatisticsNeedNoTextAndServeOtherSizes) {
    const TemporaryDirectory directory;
    const std::string statistics = directory / "statistics";
    ASSERT_EQ(run({"convert", model, directory / "a", "--cache-ratio", "0.25", "--statistics", statistics,
                   "--calibration-windows", "2", "--calibration-window", "32"})
                  .exit_code,
              0);
    const auto again = run({"convert", model, directory / "b", "--cache-ratio", "0.5", "--statistics", statistics});
    EXPECT_EQ(again.exit_code, 0) << again.err;
    const auto of_another_text =
        run({"convert", model, directory / "c", "--statistics", statistics, "--calibration", "another.txt"}).err;
    EXPECT_THAT(of_another_text, testing::AllOf(HasSubstr("another.txt"), HasSubstr("--statistics")));
    const auto nowhere = run({"convert", model, directory / "c", "--statistics", directory / "no/such/place"}).err;
    EXPECT_THAT(nowhere, HasSubstr("no such directory"));
    const auto other_sinks = run({"convert", model, directory / "c", "--sinks", "0", "--statistics", statistics}).err;
    EXPECT_THAT(other_sinks, testing::AllOf(HasSubstr("sinks"), HasSubstr("--statistics")));
}

TEST(ConvertCommand, DryRunPrintsThePlanAndWritesNothing) {
    const TemporaryDirectory directory;
    const auto plan = run({"convert", model, directory / "mla", "--dry-run", "--json"}).json();
    EXPECT_EQ(plan["by_layer"], true);
    EXPECT_TRUE(plan.is_object());
    EXPECT_TRUE(fs::is_empty(directory.path()));
    EXPECT_THAT(run({"convert", model, directory / "mla", "--dry-run"}).out, HasSubstr("% less"));
}

TEST(ConvertCommand, SameSeedSameBytes) {
    const TemporaryDirectory directory;
    for (const std::string name : {"a", "b"}) {
        ASSERT_EQ(run({"convert", model, directory / name, "--calibration-windows", "2", "--calibration-window", "32",
                       "--seed", "5"})
                      .exit_code,
                  0);
    }
    EXPECT_EQ(core::read_text(directory / "a/model.safetensors"), core::read_text(directory / "b/model.safetensors"));
}

TEST(ConvertCommand, ExistingTargetNeedsForce) {
    const TemporaryDirectory directory;
    const std::string target = directory / "mla";
    ASSERT_EQ(run({"convert", model, target, "--kv-rank", "4"}).exit_code, 0);
    const auto before = core::read_text(target + "/config.json");
    const auto refused = run({"convert", model, target, "--kv-rank", "8"});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_THAT(refused.err, HasSubstr("--force"));
    const auto refused_before_reading = run({"convert", model, target, "--calibration", "no such text"});
    EXPECT_THAT(refused_before_reading.err, HasSubstr("--force"));
    EXPECT_EQ(core::read_text(target + "/config.json"), before);
    EXPECT_EQ(run({"convert", model, target, "--kv-rank", "8", "--force"}).exit_code, 0);
    EXPECT_NE(core::read_text(target + "/config.json"), before);
}

TEST(ConvertCommand, ForceNeverReplacesWhatIsNoModel) {
    const TemporaryDirectory directory;
    std::ofstream(directory / "precious.txt") << "keep me";
    EXPECT_EQ(run({"convert", model, directory.path().string(), "--force"}).exit_code, 1);
    EXPECT_TRUE(fs::exists(directory / "precious.txt"));
}

TEST(ConvertCommand, InterruptionLeavesNothingBehind) {
    const auto source = default_model();
    if (!source) GTEST_SKIP() << "MHA2MLA_MODEL names no model: ./dev test sets it";
    const TemporaryDirectory directory;
    const auto outcome =
        run_and_interrupt({"convert", *source, directory / "mla", "--method", "mha2mla"}, directory.path());
    EXPECT_EQ(outcome.exit_code, 130) << outcome.err;
    EXPECT_TRUE(fs::is_empty(directory.path()));
}

TEST(ConvertCommand, FullDiskIsOneSentenceAndLeavesNothing) {
    const TemporaryDirectory directory;
    const auto outcome = run({"convert", model, directory / "mla"}, {.environment = {}, .largest_file_bytes = 16'000});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_THAT(outcome.err, testing::AllOf(HasSubstr("cannot write"), HasSubstr("free space")));
    EXPECT_TRUE(fs::is_empty(directory.path()));
}

struct Refusal {
    std::string name;
    std::vector<std::string> options;
    std::vector<std::string> message;
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

class ConvertRefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(ConvertRefusalTest, NamesTheOptionAndItsRange) {
    const TemporaryDirectory directory;
    std::vector<std::string> arguments{"convert", model, directory / "mla"};
    arguments.insert(arguments.end(), GetParam().options.begin(), GetParam().options.end());
    const auto outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
    for (const auto& part : GetParam().message) EXPECT_THAT(outcome.err, HasSubstr(part));
    EXPECT_TRUE(fs::is_empty(directory.path()));
}

INSTANTIATE_TEST_SUITE_P(
    ConvertCommand, ConvertRefusalTest,
    testing::Values(
        Refusal{"UnknownSelection", {"--select", "best"}, {"--select", "uniform"}},
        Refusal{"SelectionOfTwoWords",
                {"--select", "uniform", "model", "--force"},
                {"--select", "uniform model", "before it"}},
        Refusal{
            "OptionOfTheOtherMethod", {"--method", "lsq", "--rope-pairs", "2"}, {"--rope-pairs", "--method mha2mla"}},
        Refusal{"OptionsOfBothMethods", {"--select", "high", "--sinks", "0"}, {"--sinks", "--method lsq"}},
        Refusal{"TooManySinks", {"--sinks", "65"}, {"--sinks", "64"}},
        Refusal{"SinksWithoutMeanKey", {"--no-mean-key"}, {"--sinks 0"}},
        Refusal{"TooManyComponents", {"--rope-components", "999"}, {"--rope-components"}},
        Refusal{"OptionOfOneSharedKeyMethod",
                {"--rope-components", "4", "--freqfold", "2", "--sinks", "0"},
                {"the method transmla has no such option", "--sinks", "--method lsq"}},
        Refusal{"FreqfoldThatIsNoNumber", {"--freqfold", "2x"}, {"--freqfold", "auto", "2x"}},
        Refusal{"FreqfoldThatDoesNotFit",
                {"--method", "transmla", "--rope-components", "2", "--freqfold", "2"},
                {"--freqfold", "multiple of 4"}},
        Refusal{"SizesByLayerThatAreGiven", {"--by-layer", "--kv-rank", "8"}, {"--by-layer", "--kv-rank"}},
        Refusal{"NoBalance", {"--balance-kv", "0"}, {"--balance-kv", "above 0"}},
        Refusal{"NothingToHoldOut",
                {"--method", "transmla", "--calibration-windows", "1", "--calibration-window", "32"},
                {"--calibration", "--freqfold"}},
        Refusal{"NothingToChooseLayerSizesBy",
                {"--calibration-windows", "1", "--calibration-window", "32"},
                {"--calibration", "--no-by-layer"}},
        Refusal{"DeepseekWithoutRotaryKey",
                {"--export-shape", "deepseek", "--rope-components", "0"},
                {"--rope-components", "1 or more"}},
        Refusal{"DeepseekByPlainErrors", {"--export-shape", "deepseek", "--metric", "plain"}, {"--metric", "weighted"}},
        Refusal{"DeepseekOfALatentAlone",
                {"--export-shape", "deepseek", "--kv-rank", "8"},
                {"--kv-rank", "--rope-components"}},
        Refusal{"TableWithoutFile", {"--select", "table"}, {"--select"}},
        Refusal{"MissingTable", {"--select", "table", "no.pth"}, {"no.pth"}},
        Refusal{"TooManyPairs", {"--rope-pairs", "9"}, {"--rope-pairs", "8"}},
        Refusal{"UnevenUniform", {"--rope-pairs", "3"}, {"--rope-pairs"}},
        Refusal{"RankTooLarge", {"--kv-rank", "4096"}, {"--kv-rank"}},
        Refusal{"RatioTooSmall", {"--cache-ratio", "0.001"}, {"--cache-ratio"}},
        Refusal{"UnknownDevice", {"--device", "abacus"}, {"abacus"}}),
    [](const auto& instance) { return instance.param.name; });

TEST(ConvertCommand, CalibrationTextThatIsTooShortEmptyOrNoTextIsRefusedByName) {
    const TemporaryDirectory directory;
    const std::string text = directory / "text.txt";
    for (const std::string contents : {"the cat", "", "\xff\xfe not UTF-8"}) {
        std::ofstream(text) << contents;
        const auto outcome = run({"convert", model, directory / "mla", "--calibration", text});
        EXPECT_EQ(outcome.exit_code, 1) << contents;
        EXPECT_THAT(outcome.err, HasSubstr("text.txt")) << contents;
    }
    const auto short_windows = run({"convert", model, directory / "mla", "--calibration-window", "8"});
    EXPECT_EQ(short_windows.exit_code, 1);
    EXPECT_THAT(short_windows.err, HasSubstr("--calibration-window"));
    const auto long_windows = run({"convert", model, directory / "mla", "--calibration-window", "129"});
    EXPECT_EQ(long_windows.exit_code, 1);
    EXPECT_THAT(long_windows.err, testing::AllOf(HasSubstr("--calibration-window"), HasSubstr("at most 128")));
    EXPECT_FALSE(fs::exists(directory / "mla"));
}

TEST(ConvertCommand, ReadOnlyParentIsOneSentence) {
    if (::geteuid() == 0) GTEST_SKIP() << "root may write anywhere";
    const TemporaryDirectory directory;
    fs::permissions(directory.path(), fs::perms::owner_read | fs::perms::owner_exec);
    const auto outcome = run({"convert", model, directory / "mla"});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_THAT(outcome.err, HasSubstr("cannot create a directory"));
    fs::permissions(directory.path(), fs::perms::owner_all);
}

}  // namespace
}  // namespace mha2mla::tests
