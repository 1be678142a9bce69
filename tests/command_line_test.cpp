// Every verb as a user runs it, on a tiny model: its JSON, its text, its errors.

#include <algorithm>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>

#include "core/file.h"
#include "run_program.h"

namespace mha2mla::tests {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string model = fixture_model("tiny-text");

std::string text_file(const TemporaryDirectory& directory, int repetitions) {
    const std::string path = directory / "text.txt";
    std::ofstream file(path);
    for (int i = 0; i < repetitions; ++i) file << "the cat sat on the mat and the hen ran to the den\n";
    return path;
}

TEST(CommandLine, EveryVerbExplainsItselfWithAnExample) {
    for (const std::string verb :
         {"inspect", "generate", "eval", "tokenize", "bench", "pack", "convert", "calibrate"}) {
        const auto outcome = run({verb, "--help"});
        EXPECT_EQ(outcome.exit_code, 0) << verb;
        EXPECT_THAT(outcome.out, AllOf(HasSubstr("Examples:"), HasSubstr("mha2mla " + verb), HasSubstr("--json")))
            << verb;
    }
}

TEST(CommandLine, VersionNamesCommitAndInstructionSet) {
    const auto outcome = run({"--version"});
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_THAT(outcome.out, AllOf(HasSubstr("mha2mla "), HasSubstr("commit ")));
}

TEST(CommandLine, InspectReportsCacheBytesByLayer) {
    const auto object = run({"inspect", model, "--json"}).json();
    EXPECT_EQ(object["kv_cache"]["bytes_per_token_per_layer"],
              core::Json::array({128, 128}));  // 2 * 2 heads * 16 * 2 bytes
    EXPECT_EQ(object["kv_cache"]["bytes_per_token"], 256);
    EXPECT_EQ(object["attention"], "gqa");
}

TEST(CommandLine, TokenizeGoesThereAndBack) {
    const auto ids = run({"tokenize", model, "-p", "the cat", "--json"}).json()["tokens"];
    std::vector<std::string> arguments{"tokenize", model, "--json", "--decode"};
    for (const auto& id : ids) arguments.push_back(std::to_string(id.get<int>()));
    EXPECT_EQ(run(arguments).json()["text"], "the cat");
}

TEST(CommandLine, GenerateIsRepeatableForASeed) {
    const std::vector<std::string> arguments{"generate",      model, "-p",           "the",    "-n", "12",
                                             "--temperature", "1",   "--ignore-eos", "--seed", "3",  "--json"};
    const auto first = run(arguments).json();
    EXPECT_EQ(first["tokens"].size(), 12u);
    EXPECT_EQ(run(arguments).json()["tokens"], first["tokens"]);
    auto other = arguments;
    other[10] = "4";
    EXPECT_NE(run(other).json()["tokens"], first["tokens"]);
}

TEST(CommandLine, GenerateStreamsPromptAndText) {
    const auto outcome = run({"generate", model, "-p", "the cat", "-n", "4", "--ignore-eos", "--stats"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, testing::StartsWith("the cat"));
    EXPECT_THAT(outcome.err, HasSubstr("4 generated"));
}

TEST(CommandLine, PackedWeightsBesideTheModelAreUsedAndNothingElseChanges) {
    const TemporaryDirectory directory;
    const std::string copy = directory / "model";
    std::filesystem::copy(model, copy);
    const std::vector<std::string> arguments{"generate", copy,        "-p",   "the cat", "-n",
                                             "8",        "--weights", "int8", "--json",  "--ignore-eos"};
    const auto before = run(arguments).json();
    const auto packed = run({"pack", copy, "--weights", "int8", "--json"}).json();
    EXPECT_EQ(packed["path"], copy + "/packed-int8.mha2mla");
    EXPECT_GT(std::filesystem::file_size(copy + "/packed-int8.mha2mla"), packed["bytes"].get<std::size_t>());
    const auto after = run(arguments);
    EXPECT_EQ(after.json()["tokens"], before["tokens"]);
    EXPECT_EQ(after.err, "");

    std::filesystem::resize_file(copy + "/packed-int8.mha2mla", 1000);
    const auto damaged = run(arguments);
    EXPECT_EQ(damaged.exit_code, 1);
    EXPECT_THAT(damaged.err, AllOf(HasSubstr("packed-int8.mha2mla"), HasSubstr("mha2mla pack")));
    const auto other_format = run({"generate", copy, "-p", "the cat", "-n", "1", "--weights", "int4"});
    EXPECT_EQ(other_format.exit_code, 0) << other_format.err;
}

/// A file with these lines.
std::string lines_file(const TemporaryDirectory& directory, const std::string& lines) {
    const std::string path = directory / "prompts";
    std::ofstream(path) << lines;
    return path;
}

TEST(CommandLine, ManyPromptsGetWhatEachGetsAlone) {
    const TemporaryDirectory directory;
    const std::vector<std::string> prompts{"the cat", "the hen ran to", "a", "the cat sat on the mat", "the den"};
    std::string lines;
    for (const auto& prompt : prompts) lines += core::Json{{"prompt", prompt}}.dump() + "\n";
    const std::vector<std::string> options{"-n",  "9",          "--ignore-eos", "--weights",
                                           "f32", "--kv-cache", "f32",          "--json"};
    std::vector<std::string> arguments{"generate", model, "--prompts", lines_file(directory, lines), "--parallel", "3"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const auto outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("5 prompts in"));
    std::istringstream printed(outcome.out);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        std::string line;
        ASSERT_TRUE(std::getline(printed, line)) << "prompt " << i;
        const auto object = core::parse_json(line, "stdout");
        std::vector<std::string> alone{"generate", model, "-p", prompts[i]};
        alone.insert(alone.end(), options.begin(), options.end());
        EXPECT_EQ(object["index"], i);
        EXPECT_EQ(object["prompt"], prompts[i]);
        EXPECT_EQ(object["tokens"], run(alone).json()["tokens"]) << prompts[i];
    }
}

TEST(CommandLine, PromptsAreLinesAndOutputsComeInTheirOrder) {
    const TemporaryDirectory directory;
    const auto outcome = run({"generate", model, "--prompts", lines_file(directory, "the cat\n\nthe hen\n"), "-n", "2",
                              "--ignore-eos", "--log-level", "quiet"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, testing::StartsWith("the cat"));
    EXPECT_THAT(outcome.out, HasSubstr("\n\nthe hen"));
    EXPECT_EQ(outcome.err, "");
}

TEST(CommandLine, BadPromptsAreNamedByLine) {
    const TemporaryDirectory directory;
    const auto message = [&](const std::string& lines) {
        const auto outcome = run({"generate", model, "--prompts", lines_file(directory, lines), "--context", "4"});
        EXPECT_EQ(outcome.exit_code, 1);
        EXPECT_EQ(outcome.out, "");
        return outcome.err;
    };
    EXPECT_THAT(message("{\"prompt\": \"a\"}\nb\n"), HasSubstr("prompts, line 2"));
    EXPECT_THAT(message("a\nthe cat sat on the mat\n"), AllOf(HasSubstr("prompts, line 2"), HasSubstr("--context")));
    EXPECT_THAT(message("\n"), HasSubstr("no prompts"));
}

TEST(CommandLine, GenerateStopsWhereTheContextIsFull) {
    const auto object =
        run({"generate", model, "-p", "the", "-n", "999", "--ignore-eos", "--context", "32", "--json"}).json();
    EXPECT_EQ(object["finish_reason"], "context");
}

TEST(CommandLine, EveryInstructionSetGeneratesTheSameText) {
    const std::vector<std::string> arguments{"generate",     model,       "-p",  "the cat sat", "-n",  "8",
                                             "--ignore-eos", "--weights", "f32", "--kv-cache",  "f32", "--json"};
    const auto portable =
        run(arguments, {.environment = {"MHA2MLA_ISA=portable"}, .largest_file_bytes = {}}).json()["tokens"];
    for (const std::string isa : {"avx2", "avx512", "amx"}) {
        const auto outcome = run(arguments, {.environment = {"MHA2MLA_ISA=" + isa}, .largest_file_bytes = {}});
        if (outcome.exit_code != 0) {
            EXPECT_THAT(outcome.err, HasSubstr(isa));  // this machine lacks it, and says so
            continue;
        }
        EXPECT_EQ(outcome.json()["tokens"], portable) << isa;
    }
}

TEST(CommandLine, WhatRunsModelsDoesNotLoadLibTorch) {
    const std::string program = core::read_text(MHA2MLA_PROGRAM);
    ASSERT_THAT(program, HasSubstr("libpcre2"));  // names of needed libraries stand in the file
    EXPECT_EQ(program.find("libtorch"), std::string::npos);
    EXPECT_EQ(program.find("libc10"), std::string::npos);
}

TEST(CommandLine, EvalReportsPerplexityTokensAndSeconds) {
    const TemporaryDirectory directory;
    const auto object =
        run({"eval", model, "--text", text_file(directory, 40), "--window", "64", "--windows", "2", "--json"}).json();
    EXPECT_GT(object["perplexity"].get<double>(), 1.0);
    EXPECT_EQ(object["tokens"], 2 * 63);
    EXPECT_TRUE(object.contains("seconds"));
    EXPECT_EQ(object["kv_cache"]["format"], "bf16");
    EXPECT_EQ(object["kv_cache"]["bytes_per_token"], 256);
}

TEST(CommandLine, TokenizeCounts) {
    const auto ids = run({"tokenize", model, "-p", "the cat", "--json"}).json()["tokens"];
    const auto counted = run({"tokenize", model, "-p", "the cat", "--count", "--json"}).json();
    EXPECT_EQ(counted["count"], ids.size());
    EXPECT_EQ(counted["bytes"], 7);
    EXPECT_FALSE(counted.contains("tokens"));
}

TEST(CommandLine, BenchListsTestsByDepth) {
    const auto list = run({"bench", model, "--prefill", "16", "--decode", "4", "--depth", "0,32", "--json"}).json();
    ASSERT_EQ(list.size(), 4u);
    for (const auto& item : list) {
        EXPECT_GT(item["tokens_per_second"].get<double>(), 0);
        EXPECT_TRUE(item.contains("test") && item.contains("depth"));
    }
}

TEST(CommandLine, BenchGoesBeyondTheModelsContextWhereThatIsAllowed) {
    const auto list = run({"bench", model, "--prefill", "0", "--decode", "2", "--depth", "4096", "--repetitions", "1",
                           "--allow-long-context", "--json"})
                          .json();
    ASSERT_EQ(list.size(), 1u);
    EXPECT_EQ(list[0]["depth"], 4096);
    EXPECT_GT(list[0]["tokens_per_second"].get<double>(), 0);
}

TEST(CommandLine, BenchMeasuresSequencesTogether) {
    const auto list =
        run({"bench", model, "--prefill", "0", "--decode", "4", "--depth", "32", "--parallel", "3", "--json"}).json();
    ASSERT_EQ(list.size(), 1u);
    EXPECT_EQ(list[0]["test"], "tg4x3");
    EXPECT_EQ(list[0]["kv_bytes_allocated"], 3 * 64 * 256) << "a page each";
}

TEST(CommandLine, AFullDiskBehindStandardOutputIsAnError) {
    const std::string program = MHA2MLA_PROGRAM;
    const std::string command = program + " inspect " + model + " --json > /dev/full 2> /dev/null";
    EXPECT_NE(std::system(command.c_str()), 0);
}

struct BadInput {
    std::string name;
    std::vector<std::string> arguments;
    int exit_code;
    std::vector<std::string> message;  // parts
};

void PrintTo(const BadInput& input, std::ostream* out) { *out << input.name; }

class BadInputTest : public testing::TestWithParam<BadInput> {};

TEST_P(BadInputTest, IsOneLineThatSaysWhatToDo) {
    const auto outcome = run(GetParam().arguments);
    EXPECT_EQ(outcome.exit_code, GetParam().exit_code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    for (const auto& part : GetParam().message) EXPECT_THAT(outcome.err, HasSubstr(part));
    if (GetParam().exit_code == 1) {
        EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    }
}

const std::string repository_file = std::string(MHA2MLA_FIXTURES) + "/models/tiny-text/config.json";

INSTANTIATE_TEST_SUITE_P(
    CommandLine, BadInputTest,
    testing::Values(
        BadInput{"NoVerb", {}, 2, {"subcommand"}}, BadInput{"UnknownVerb", {"transmogrify"}, 2, {"--help"}},
        BadInput{"UnknownOption", {"inspect", model, "--colour"}, 2, {"--colour"}},
        BadInput{"NegativeSeed", {"generate", model, "-p", "a", "--seed", "-1"}, 2, {"--seed"}},
        BadInput{"NoModel", {"inspect"}, 2, {"MODEL"}},
        BadInput{"MissingModel", {"inspect", "no/such/model"}, 1, {"no/such/model"}},
        BadInput{"NotAModelFile", {"inspect", repository_file}, 1, {"config.json", "pass the directory"}},
        BadInput{"NotAModelDirectory", {"inspect", MHA2MLA_FIXTURES}, 1, {"config.json"}},
        BadInput{"MissingText", {"eval", model, "--text", "no-such.txt"}, 1, {"no-such.txt"}},
        BadInput{"DirectoryAsText", {"eval", model, "--text", MHA2MLA_FIXTURES}, 1, {MHA2MLA_FIXTURES, "directory"}},
        BadInput{"EmulationByTheNativeEngine",
                 {"eval", model, "--text", repository_file, "--emulate-cache", "int4"},
                 1,
                 {"--emulate-cache", "--engine workshop"}},
        BadInput{"UnknownCacheFormat",
                 {"eval", model, "--text", repository_file, "--engine", "workshop", "--emulate-cache", "int3"},
                 1,
                 {"--emulate-cache", "'int3'", "int4-g64"}},
        BadInput{"UnknownCacheFormatOfTheNativeEngine",
                 {"eval", model, "--text", repository_file, "--kv-cache", "int4-x"},
                 1,
                 {"--kv-cache", "'int4-x'", "int4-c"}},
        BadInput{"LatentFormatOfASource",
                 {"generate", model, "-p", "a", "--kv-cache", "latent=int8,rope=int4"},
                 1,
                 {"--kv-cache", "keys=A,values=B"}},
        BadInput{"OptionOfTheOtherEngine",
                 {"eval", model, "--text", repository_file, "--engine", "workshop", "--kv-cache", "int4"},
                 1,
                 {"--kv-cache", "--engine native"}},
        BadInput{"DeviceOfTheNativeEngine",
                 {"eval", model, "--text", repository_file, "--device", "cuda"},
                 1,
                 {"--device", "--engine workshop"}},
        BadInput{"TooFewWindows",
                 {"eval", model, "--text", repository_file, "--window", "128", "--first", "99"},
                 1,
                 {"window"}},
        BadInput{"WindowBeyondContext",
                 {"eval", model, "--text", repository_file, "--window", "4096"},
                 1,
                 {"--window", "128"}},
        BadInput{"ContextBeyondModel", {"generate", model, "-p", "x", "--context", "9999"}, 1, {"--context", "128"}},
        BadInput{"PromptBeyondContext",
                 {"generate", model, "-p", "the cat sat on the mat", "--context", "4"},
                 1,
                 {"--context"}},
        BadInput{"EmptyPrompt", {"generate", model, "-p", ""}, 1, {"prompt is empty"}},
        BadInput{"NoPrompt", {"generate", model}, 2, {"--prompt"}},
        BadInput{"MissingPrompts", {"generate", model, "--prompts", "no-such.jsonl"}, 1, {"no-such.jsonl"}},
        BadInput{"PromptAndPrompts", {"generate", model, "-p", "x", "--prompts", "y"}, 2, {"prompt"}},
        BadInput{"ParallelWithoutPrompts", {"generate", model, "-p", "x", "--parallel", "3"}, 2, {"--parallel"}},
        BadInput{"ParallelBeyondABatch", {"bench", model, "--parallel", "513"}, 2, {"--parallel"}},
        BadInput{"BadTemperature", {"generate", model, "-p", "x", "--temperature", "-1"}, 1, {"temperature"}},
        BadInput{"BadTopP", {"generate", model, "-p", "x", "--top-p", "1.5"}, 1, {"top"}},
        BadInput{"BadType",
                 {"generate", model, "-p", "x", "--weights", "int3"},
                 2,
                 {"--weights", "bf16, f32, int4, int8", "'int3'"}},
        BadInput{"QuantizedWeightsInTheWorkshop",
                 {"eval", model, "--text", repository_file, "--engine", "workshop", "--weights", "int8"},
                 1,
                 {"--weights", "--engine native"}},
        BadInput{"NoSuchPackedWeights", {"generate", model, "-p", "x", "--packed", "no/such"}, 1, {"no/such"}},
        BadInput{"PackedIntoNoDirectory", {"pack", model, "no/such/file"}, 1, {"no/such/file"}},
        BadInput{"NoSuchToken", {"tokenize", model, "--decode", "272"}, 1, {"--decode", "271"}},
        BadInput{"HugeDepth", {"bench", model, "--depth", "2147483647"}, 2, {"--depth"}},
        BadInput{"NoSuchKernel", {"bench", "--kernels", "--only", "no such"}, 1, {"--only", "no such"}},
        BadInput{"BadDepth", {"bench", model, "--depth", "4096"}, 1, {"4096", "--allow-long-context"}}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace mha2mla::tests
