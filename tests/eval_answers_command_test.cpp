// The tasks of `eval` whose answers are generated, as a user runs them, on a tiny model.

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "run_program.h"

namespace mha2mla::tests {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string model = fixture_model("tiny-text");

std::string write(const TemporaryDirectory& folder, const std::string& name, const std::string& content) {
    std::ofstream(folder / name) << content;
    return folder / name;
}

/// Two datasets of LongBench with short prompts and answers. One row of qasper has no answers, one is too long.
void write_longbench(const TemporaryDirectory& folder) {
    write(folder, "dataset2prompt.json",
          R"({"qasper": "{context} {input}", "trec": "{context}", "vcsum": "{context}"})");
    write(folder, "dataset2maxlen.json", R"({"qasper": 6, "trec": 5, "vcsum": 5})");
    std::string rows;
    for (const std::string context : {"the cat sat", "the hen ran to the den"}) {
        rows += core::Json{{"context", context}, {"input", "on"}, {"answers", {"mat", "hen"}}}.dump() + "\n";
    }
    write(folder, "qasper.jsonl", rows + "{\"context\": \"a\", \"input\": \"b\"}\n");
    write(folder, "longbench-trec.jsonl",
          core::Json{{"context", "the cat"}, {"answers", {"x"}}, {"all_classes", {"x", "y"}}, {"dataset", "trec"}}
              .dump());
}

/// The tiny model with a longer context.
std::string roomy_model(const TemporaryDirectory& folder, int context) {
    const std::string copy = folder / "model";
    std::filesystem::copy(model, copy);
    auto config = core::parse_json(core::read_text(copy + "/config.json"), "config.json");
    config["max_position_embeddings"] = context;
    std::ofstream(copy + "/config.json") << config.dump();
    return copy;
}

std::vector<std::string> longbench(const TemporaryDirectory& folder, std::initializer_list<std::string> more) {
    std::vector<std::string> arguments{"eval", model, "--task", "longbench", "--data", folder.path().string()};
    arguments.insert(arguments.end(), more);
    return arguments;
}

TEST(EvalLongBench, ReportsEveryDatasetAndWhatIsLeftOut) {
    const TemporaryDirectory folder;
    write_longbench(folder);
    const auto outcome = run(longbench(folder, {"--json"}));
    const auto report = outcome.json();
    ASSERT_EQ(report["datasets"].size(), 2u);
    const auto& qasper = report["datasets"][0];
    EXPECT_EQ(qasper["dataset"], "qasper");
    EXPECT_EQ(qasper["rows"], 2);
    EXPECT_EQ(qasper["left_out"], 1);
    EXPECT_LE(qasper["generated_tokens"], 12);
    EXPECT_GT(qasper["prompt_tokens"], 6);
    EXPECT_EQ(report["datasets"][1]["rows"], 1);
    EXPECT_DOUBLE_EQ(report["mean"].get<double>(),
                     (qasper["score"].get<double>() + report["datasets"][1]["score"].get<double>()) / 2);
    EXPECT_EQ(report["chat"], "none");
    EXPECT_EQ(report["kv_cache"]["bytes_per_token"], 256);
    EXPECT_EQ(report["run"]["model"], model);
    EXPECT_EQ(report["run"]["data"], folder.path().string());
    EXPECT_EQ(report["run"]["weights"], "bf16");
    EXPECT_THAT(report["left_out"][0].get<std::string>(), AllOf(HasSubstr("line 3"), HasSubstr("'answers'")));
    EXPECT_THAT(outcome.err, HasSubstr("1 of 3 rows is left out"));
}

TEST(EvalLongBench, TextIsATable) {
    const TemporaryDirectory folder;
    write_longbench(folder);
    const auto outcome = run(longbench(folder, {"--dataset", "trec,qasper", "--limit", "1", "--log-level", "quiet"}));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, AllOf(testing::StartsWith("| dataset | score |"), HasSubstr("\n| trec | "),
                                   HasSubstr("\n| qasper | "), HasSubstr("\n| mean | ")));
    EXPECT_EQ(outcome.err, "");
}

TEST(EvalLongBench, GoesOnBehindFinishedRequests) {
    const TemporaryDirectory folder;
    write_longbench(folder);
    const std::string results = folder / "results";
    const auto first = run(longbench(folder, {"--dataset", "qasper", "--results", results, "--json"})).json();
    EXPECT_LT(first["datasets"][0]["score"], 100);
    // An answer that the model did not give proves that it is not asked again.
    std::string lines = core::read_text(results), changed;
    for (std::size_t begin = 0; begin < lines.size();) {
        const auto end = lines.find('\n', begin) + 1;
        auto line = core::parse_json(lines.substr(begin, end - begin), "results");
        if (line.contains("result")) line["result"]["text"] = "The mat!";
        changed += line.dump() + "\n";
        begin = end;
    }
    std::ofstream(results) << changed;
    const auto second = run(longbench(folder, {"--dataset", "qasper", "--results", results, "--json"})).json();
    EXPECT_EQ(second["datasets"][0]["score"], 100);
    const auto other = run(longbench(folder, {"--dataset", "qasper", "--results", results, "--weights", "int8"}));
    EXPECT_EQ(other.exit_code, 1);
    EXPECT_THAT(other.err, HasSubstr("another run"));
    write(folder, "dataset2maxlen.json", R"({"qasper": 16, "trec": 5, "vcsum": 5})");
    const auto rewritten = run(longbench(folder, {"--dataset", "qasper", "--results", results}));
    EXPECT_THAT(rewritten.err, AllOf(HasSubstr("another run"), HasSubstr("dataset2maxlen.json")));
}

TEST(EvalLongBench, CutsLongPromptsInTheMiddle) {
    const TemporaryDirectory folder;
    write_longbench(folder);
    std::string context;
    for (int i = 0; i < 60; ++i) context += "the cat sat on the mat and ";
    write(folder, "qasper.jsonl", core::Json{{"context", context}, {"input", ""}, {"answers", {"mat"}}}.dump());
    const auto cut = run(longbench(folder, {"--dataset", "qasper", "--json"})).json()["datasets"][0];
    EXPECT_EQ(cut["max_length"], 128 - 6 - 32);
    EXPECT_GT(cut["prompt_tokens"], 128 - 6 - 32 - 4);
    EXPECT_LE(cut["prompt_tokens"], 128 - 6);
    const auto shorter = run(longbench(folder, {"--dataset", "qasper", "--max-length", "40", "--json"})).json();
    EXPECT_LE(shorter["datasets"][0]["prompt_tokens"], 44);
    const auto none = run(longbench(folder, {"--dataset", "qasper", "--max-length", "1000", "--json"}));
    EXPECT_EQ(none.exit_code, 1);
    EXPECT_THAT(none.err, AllOf(HasSubstr("--max-length"), HasSubstr("at most 90"), HasSubstr("qasper")));
}

TEST(EvalLongBench, AChatTemplateMakesMessages) {
    const TemporaryDirectory folder;
    write_longbench(folder);
    const auto tokens = [&](const std::string& chat) {
        const auto report = run(longbench(folder, {"--chat", chat, "--json"})).json();
        EXPECT_EQ(report["chat"], chat);
        return std::pair(report["datasets"][0]["prompt_tokens"].get<int>(),
                         report["datasets"][1]["prompt_tokens"].get<int>());
    };
    const auto plain = tokens("none"), messages = tokens("llama2");
    EXPECT_GT(messages.first, plain.first);
    EXPECT_EQ(messages.second, plain.second) << "trec goes on from examples";
}

TEST(EvalLongBench, QuantizedCachesAreMeasured) {
    const TemporaryDirectory folder;
    write_longbench(folder);
    const auto report = run(longbench(folder, {"--kv-cache", "int8-g16", "--json"})).json();
    EXPECT_EQ(report["kv_cache"]["format"], "int8-g16");
    EXPECT_EQ(report["datasets"][0]["rows"], 2);
}

TEST(EvalLongBench, MisuseIsNamed) {
    const TemporaryDirectory folder;
    write_longbench(folder);
    const auto message = [](const std::vector<std::string>& arguments) {
        const auto outcome = run(arguments);
        EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
        EXPECT_EQ(outcome.out, "");
        return outcome.err;
    };
    EXPECT_THAT(message({"eval", model, "--task", "longbench"}), HasSubstr("--data"));
    EXPECT_THAT(message(longbench(folder, {"--dataset", "squad"})), AllOf(HasSubstr("squad"), HasSubstr("qasper")));
    EXPECT_THAT(message(longbench(folder, {"--dataset", "lcc"})), HasSubstr("lcc"));
    EXPECT_THAT(message(longbench(folder, {"--chat", "alpaca"})), AllOf(HasSubstr("--chat"), HasSubstr("chatml")));
    EXPECT_THAT(message(longbench(folder, {"--context", "999"})), HasSubstr("--context"));
    EXPECT_THAT(message(longbench(folder, {"--dataset", "trec,qasper,trec"})),
                AllOf(HasSubstr("twice"), HasSubstr("trec")));
    EXPECT_THAT(message({"eval", model, "--task", "longbench", "--data", folder / "qasper.jsonl"}),
                HasSubstr("folder"));
    EXPECT_THAT(message(longbench(folder, {"--depths", "50"})), AllOf(HasSubstr("--depths"), HasSubstr("longbench")));
    EXPECT_THAT(message(longbench(folder, {"--engine", "workshop"})), HasSubstr("--engine"));
    write(folder, "vcsum.jsonl", R"({"context": "a", "input": "b", "answers": ["c"]})");
    EXPECT_THAT(message(longbench(folder, {})), AllOf(HasSubstr("--jieba"), HasSubstr("pip install")));
    EXPECT_THAT(message(longbench(folder, {"--jieba", folder.path().string()})), HasSubstr("dict.txt"));
    write(folder, "qasper.jsonl", R"({"context": "a", "input": "b", "answers": ["c"], "dataset": "qmsum"})");
    EXPECT_THAT(message(longbench(folder, {"--dataset", "qasper"})),
                AllOf(HasSubstr("another dataset"), HasSubstr("qmsum")));
}

/// Stands in for the package jieba.
std::string tiny_jieba(const TemporaryDirectory& folder) {
    std::filesystem::create_directories(folder / "jieba/finalseg");
    write(folder, "jieba/dict.txt", "会议 10 n\n");
    write(folder, "jieba/finalseg/prob_start.py", "P={'B': -0.3, 'E': -3.14e+100, 'M': -3.14e+100, 'S': -1.5}");
    write(folder, "jieba/finalseg/prob_trans.py", "P={'B': {'E': -1}, 'E': {'B': -1}, 'M': {'E': -1}, 'S': {'S': -1}}");
    write(folder, "jieba/finalseg/prob_emit.py", "P={'B': {}, 'E': {}, 'M': {}, 'S': {}}");
    return folder / "jieba";
}

TEST(EvalLongBench, RunsEveryTaskWithItsPublishedPrompts) {
    const auto prompts = shared_file("eval/longbench-config/dataset2prompt.json");
    if (!prompts) GTEST_SKIP() << "the published prompts of LongBench are not there";
    const TemporaryDirectory folder;
    const auto names = core::parse_json(core::read_text(*prompts), *prompts);
    std::filesystem::copy(std::filesystem::path(*prompts).parent_path(), folder / "longbench-config");
    for (const auto& item : names.items()) {
        core::Json row{{"context", "the cat"}, {"input", "会议?"}, {"answers", {"Paragraph 7", "段落7"}}};
        if (item.key().ends_with("_zh")) row["answers"] = {"段落7"};
        if (item.key().ends_with("_en")) row["answers"] = {"Paragraph 7"};
        row["all_classes"] = {"Paragraph 7", "7"};
        row["dataset"] = item.key();
        write(folder, item.key() + ".jsonl", row.dump() + "\n");
    }
    const auto report = run({"eval", roomy_model(folder, 4096), "--task", "longbench", "--data", folder.path().string(),
                             "--jieba", tiny_jieba(folder), "--json"})
                            .json();
    EXPECT_EQ(report["datasets"].size(), 21u);
    for (const auto& row : report["datasets"]) EXPECT_EQ(row["rows"], 1) << row.dump();
}

TEST(EvalLongBench, CtrlCKeepsFinishedRequests) {
    const TemporaryDirectory folder;
    write_longbench(folder);
    std::string rows;
    for (int i = 0; i < 20'000; ++i)
        rows += R"({"context": "the cat", "input": "on", "answers": ["mat"]})" + std::string("\n");
    write(folder, "qasper.jsonl", rows);
    const std::string results = folder / "results";
    const auto lines = [&] {
        const std::string text = std::filesystem::exists(results) ? core::read_text(results) : "";
        return std::count(text.begin(), text.end(), '\n');
    };
    const auto arguments = longbench(folder, {"--dataset", "qasper", "--results", results, "--parallel", "1"});
    const auto outcome = run_and_signal(arguments, SIGINT, [&] { return lines() > 3; });
    EXPECT_NE(outcome.exit_code, 0);
    EXPECT_EQ(outcome.out, "");
    EXPECT_GT(lines(), 3);
    EXPECT_LT(lines(), 20'000);
}

TEST(EvalRetrieval, KeyValuesAreCounted) {
    const TemporaryDirectory folder;
    const auto path =
        write(folder, "kv.jsonl",
              "{\"context\": \"the cat sat on the\", \"answer\": \"no such text\", \"answer_location\": 1}\n"
              "{\"context\": \"the cat\"}\n");
    const auto outcome = run({"eval", model, "--task", "kv-retrieval", "--data", path, "--json"});
    const auto report = outcome.json();
    EXPECT_EQ(report["score"], 0);
    EXPECT_EQ(report["exact"], 0);
    EXPECT_EQ(report["rows"], 1);
    EXPECT_EQ(report["left_out"].size(), 1u);
    EXPECT_THAT(outcome.err, HasSubstr("1 of 2 rows is left out"));
    const auto text = run({"eval", model, "--task", "kv-retrieval", "--data", path, "--limit", "1"});
    EXPECT_THAT(text.out, AllOf(HasSubstr("| found |"), HasSubstr("| 1 | 0.00 % | 0.00 % |")));
}

TEST(EvalRetrieval, AnAnswerThatTheModelGivesCounts) {
    const TemporaryDirectory folder;
    const auto said = run({"generate", model, "-p", "the cat sat on", "-n", "64", "--weights", "f32", "--json"})
                          .json()["text"]
                          .get<std::string>();
    const auto begin = std::min(said.find_first_not_of(" \n\t\"'"), said.size());
    const auto path =
        write(folder, "kv.jsonl", core::Json{{"context", "the cat sat on"}, {"answer", said.substr(begin, 6)}}.dump());
    const auto report =
        run({"eval", model, "--task", "kv-retrieval", "--data", path, "--weights", "f32", "--json"}).json();
    EXPECT_EQ(report["score"], 100);
    EXPECT_EQ(report["exact"], 100);
}

TEST(EvalRetrieval, NeedlesFillAGridAndAPlot) {
    const TemporaryDirectory folder;
    const auto text = write(folder, "text", "the cat sat on the mat. the hen ran to the den. ");
    const std::vector<std::string> arguments{"eval",      roomy_model(folder, 1024),
                                             "--task",    "needle",
                                             "--text",    text,
                                             "--lengths", "400,800",
                                             "--depths",  "0,100",
                                             "--needles", "2",
                                             "--results", folder / "results"};
    auto with_plot = arguments;
    with_plot.insert(with_plot.end(), {"--plot", folder / "needle.svg", "--json"});
    const auto report = run(with_plot).json();
    EXPECT_EQ(report["rows"], 8);
    ASSERT_EQ(report["cells"].size(), 4u);
    EXPECT_EQ(report["cells"][1], (core::Json{{"length", 400}, {"depth", 100}, {"score", 0.0}}));
    EXPECT_EQ(report["score"], 0) << "a random model";
    EXPECT_THAT(core::read_text(folder / "needle.svg"), AllOf(HasSubstr("<svg"), HasSubstr(">800<")));
    const std::string lines = core::read_text(folder / "results");
    EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 9);
    const auto table = run(arguments);
    EXPECT_EQ(table.out,
              "| depth | 400 | 800 |\n| ---: | ---: | ---: |\n| 0 % | 0 % | 0 % |\n| 100 % | 0 % | 0 % |\n\n"
              "mean 0.00 %; bf16 cache, 256 bytes a token\n");
}

TEST(EvalRetrieval, MisuseIsNamed) {
    const TemporaryDirectory folder;
    const auto message = [](const std::vector<std::string>& arguments) {
        const auto outcome = run(arguments);
        EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
        return outcome.err;
    };
    EXPECT_THAT(message({"eval", model, "--task", "kv-retrieval"}), HasSubstr("--data"));
    EXPECT_THAT(message({"eval", model, "--task", "needle"}), HasSubstr("--text"));
    const auto text = write(folder, "text", "the cat sat on the mat. ");
    EXPECT_THAT(message({"eval", model, "--task", "needle", "--text", text}),
                AllOf(HasSubstr("--lengths"), HasSubstr("104")));
    EXPECT_THAT(message({"eval", model, "--task", "needle", "--text", text, "--lengths", "50"}),
                AllOf(HasSubstr("--lengths"), HasSubstr("more than")));
    EXPECT_THAT(message({"eval", model, "--task", "needle", "--text", text, "--lengths", "50,60,50"}),
                HasSubstr("twice"));
    EXPECT_THAT(
        message({"eval", model, "--task", "needle", "--text", write(folder, "blank", " \n"), "--lengths", "90"}),
        HasSubstr("haystack is empty"));
    EXPECT_THAT(message({"eval", model, "--task", "needle", "--text", text, "--plot", "no/such/file"}),
                HasSubstr("--plot"));
    EXPECT_THAT(message({"eval", model, "--task", "kv-retrieval", "--data", text}), HasSubstr("no row"));
    std::string endless;
    for (int i = 0; i < 100; ++i) endless += "the cat sat ";
    const auto rows = write(folder, "long.jsonl", core::Json{{"context", endless}, {"answer", "x"}}.dump());
    EXPECT_THAT(message({"eval", model, "--task", "kv-retrieval", "--data", rows}),
                AllOf(HasSubstr("no question is left"), HasSubstr("the context holds 128")));
}

}  // namespace
}  // namespace mha2mla::tests
