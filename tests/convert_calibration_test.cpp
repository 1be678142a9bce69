// `calibrate`, and what `convert` calibrates on, as a user runs them on a tiny model.

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "run_program.h"

namespace mha2mla::tests {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const std::string model = fixture_model("tiny-text");
const std::vector<std::string> small{"--calibration-windows", "2", "--calibration-window", "32"};

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

std::string write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
}

std::string repeated(const std::string& text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    return all;
}

TEST(CalibrateCommand, WritesTheStatisticsThatConvertWouldWrite) {
    const TemporaryDirectory directory;
    const auto report = run(with({"calibrate", model, directory / "a", "--json"}, small)).json();
    EXPECT_EQ(report["text"]["tokens"], 64);
    EXPECT_EQ(report["layer_seconds"].size(), 2u);
    EXPECT_GT(report["peak_memory_bytes"], 1'000'000);
    ASSERT_EQ(run(with({"convert", model, directory / "x", "--statistics", directory / "b"}, small)).exit_code, 0);
    for (const std::string layer : {"layer-000", "layer-001"}) {
        EXPECT_EQ(core::read_text(directory / ("a/" + layer + "/model.safetensors")),
                  core::read_text(directory / ("b/" + layer + "/model.safetensors")));
    }
    ASSERT_EQ(run({"convert", model, directory / "y", "--statistics", directory / "a"}).exit_code, 0);
    EXPECT_EQ(core::read_text(directory / "x/model.safetensors"), core::read_text(directory / "y/model.safetensors"));
    const auto record = core::parse_json(core::read_text(directory / "y/conversion.json"), "conversion.json");
    EXPECT_EQ(record["calibration"]["tokens"], 64);
    EXPECT_EQ(record["layer_seconds"].size(), 2u);
    EXPECT_GT(record["peak_memory_bytes"], 1'000'000);
}

TEST(CalibrateCommand, WindowsTakeTurnsInTemperature) {
    const TemporaryDirectory directory;
    const auto tokens = [&](const std::string& temperatures) {
        const auto target = directory / temperatures;
        const auto done = run(with({"calibrate", model, target, "--calibration-temperatures", temperatures}, small));
        EXPECT_EQ(done.exit_code, 0) << done.err;
        return core::parse_json(core::read_text(directory / (temperatures + "/tokens.json")), "tokens.json");
    };
    // Windows that are sampled together may round differently, so only what must differ is compared.
    const auto cold = tokens("0.2"), hot = tokens("2"), both = tokens("0.2,2");
    EXPECT_NE(both["windows"][0], hot["windows"][0]);
    EXPECT_NE(both["windows"][1], cold["windows"][1]);
    EXPECT_THAT(core::read_text(directory / "0.2,2/statistics.json"), HasSubstr("temperatures 0.2,2"));
}

TEST(CalibrateCommand, ReplacesNothing) {
    const TemporaryDirectory directory;
    fs::create_directory(directory / "a");
    const auto outcome = run({"calibrate", model, directory / "a"});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_THAT(outcome.err, HasSubstr("already exists"));
}

/// Of a text that is there: how many windows are sampled at once depends on the memory, and their rounding on that.
TEST(CalibrateCommand, MemoryChangesNoBit) {
    const TemporaryDirectory directory;
    const auto text = write(directory / "a.txt", repeated("the cat sat on the mat\n", 40));
    for (const std::string size : {"0", "1K", "2G"}) {
        const auto outcome =
            run(with({"calibrate", model, directory / size, "--memory", size, "--calibration", text}, small));
        ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
        EXPECT_EQ(core::read_text(directory / (size + "/layer-001/model.safetensors")),
                  core::read_text(directory / "0/layer-001/model.safetensors"));
    }
    EXPECT_EQ(run({"calibrate", model, directory / "a", "--memory", "much"}).exit_code, 2);
}

TEST(CalibrateCommand, FullDiskIsOneSentenceAndTheTextIsKept) {
    const TemporaryDirectory directory;
    const auto outcome = run(with({"calibrate", model, directory / "a", "--memory", "0"}, small),
                             {.environment = {}, .largest_file_bytes = 1'000});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("cannot write"), HasSubstr("free space")));
    EXPECT_FALSE(fs::exists(directory / "a"));
    const auto later = run(with({"calibrate", model, directory / "a"}, small));
    EXPECT_EQ(later.exit_code, 0) << later.err;
    EXPECT_FALSE(fs::exists(directory / "a.partial"));
}

TEST(CalibrateCommand, ExactTokensNeedTheMeanKey) {
    const TemporaryDirectory directory;
    const auto outcome = run(with({"calibrate", model, directory / "a", "--no-mean-key"}, small));
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("--sinks 0"), HasSubstr("--no-mean-key")));
    EXPECT_TRUE(fs::is_empty(directory.path()));
}

TEST(Calibration, MixesTextsAndRecordsThem) {
    const TemporaryDirectory directory;
    const auto text = write(directory / "a.txt", repeated("the cat sat on the mat\n", 40));
    const auto lines = write(directory / "b.jsonl", repeated("{\"text\": \"the hen ran to the den\"}\n\n", 40));
    ASSERT_EQ(run(with({"convert", model, directory / "mla", "--calibration", text + "," + lines}, small)).exit_code,
              0);
    const auto record = core::parse_json(core::read_text(directory / "mla/conversion.json"), "conversion.json");
    EXPECT_EQ(record["calibration"]["origin"], text + ", " + lines);
    EXPECT_EQ(record["calibration"]["windows"], 2);

    ASSERT_EQ(run(with({"calibrate", model, directory / "a", "--calibration", text, "--calibration", lines}, small))
                  .exit_code,
              0);
    const auto tokens = core::parse_json(core::read_text(directory / "a/tokens.json"), "tokens.json");
    const auto decoded = [&](const core::Json& window) {
        std::vector<std::string> arguments{"tokenize", model, "--json", "--decode"};
        for (const auto& id : window) arguments.push_back(std::to_string(id.get<int>()));
        return run(arguments).json()["text"].get<std::string>();
    };
    EXPECT_THAT(decoded(tokens["windows"][0]), HasSubstr("cat sat on the mat\n"));
    EXPECT_THAT(decoded(tokens["held_out"][0]), HasSubstr("den<|endoftext|>the hen")) << "documents are told apart";
}

struct BadText {
    std::string name;
    std::string file;
    std::string contents;
    std::vector<std::string> message;
};

void PrintTo(const BadText& text, std::ostream* out) { *out << text.name; }

class BadTextTest : public testing::TestWithParam<BadText> {};

/// The bad text is the second one, and the error comes before the first is tokenized.
TEST_P(BadTextTest, IsRefusedByName) {
    const TemporaryDirectory directory;
    const auto good = write(directory / "good.txt", repeated("the cat sat on the mat\n", 100));
    const auto bad = write(directory / GetParam().file, GetParam().contents);
    const auto outcome = run(with({"calibrate", model, directory / "a", "--calibration", good + "," + bad}, small));
    EXPECT_EQ(outcome.exit_code, 1);
    for (const auto& part : GetParam().message) EXPECT_THAT(outcome.err, HasSubstr(part));
    EXPECT_FALSE(fs::exists(directory / "a"));
    EXPECT_FALSE(fs::exists(directory / "a.partial"));
}

INSTANTIATE_TEST_SUITE_P(
    Calibration, BadTextTest,
    testing::Values(BadText{"Empty", "bad.txt", "", {"bad.txt", "empty"}},
                    BadText{"TooShort", "bad.txt", "the cat", {"bad.txt", "too short", "at least 32 tokens"}},
                    BadText{"NotUtf8", "bad.txt", "\xff\xfe", {"bad.txt", "not UTF-8"}},
                    BadText{"NoDocument", "bad.jsonl", "\n\n", {"bad.jsonl", "empty"}},
                    BadText{"MissingField",
                            "bad.jsonl",
                            "{\"text\": \"a\"}\n{\"content\": \"b\"}\n",
                            {"bad.jsonl, line 2", "'text'"}},
                    BadText{"NoText", "bad.jsonl", "{\"text\": 7}\n", {"bad.jsonl, line 1", "'text'"}},
                    BadText{"NoJson", "bad.jsonl", "the cat\n", {"bad.jsonl, line 1"}}),
    [](const auto& instance) { return instance.param.name; });

TEST(Calibration, NamesAFileThatIsMissingAndTextsThatFindNoWindow) {
    const TemporaryDirectory directory;
    const auto text = write(directory / "a.txt", repeated("the cat sat on the mat\n", 40));
    EXPECT_THAT(run({"convert", model, directory / "mla", "--calibration", text + ",no such text"}).err,
                HasSubstr("no such text"));
    const auto three =
        run(with({"convert", model, directory / "mla", "--calibration", text + "," + text + "," + text}, small));
    EXPECT_THAT(three.err, AllOf(HasSubstr("--calibration-windows"), HasSubstr("at least 3")));
}

}  // namespace
}  // namespace mha2mla::tests
