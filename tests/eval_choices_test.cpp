// `mha2mla eval` on multiple-choice questions against lm-evaluation-harness (tools/make_choice_fixtures.py): the
// default model in fp32, question by question.

#include <cmath>
#include <fstream>
#include <gtest/gtest.h>
#include <sstream>

#include "core/file.h"
#include "data/gzip.h"
#include "data/lines.h"
#include "run_program.h"

namespace mha2mla::tests {
namespace {

struct Benchmark {
    std::string task;     // of --task
    std::string fixture;  // its name in the fixture
};

void PrintTo(const Benchmark& benchmark, std::ostream* out) { *out << benchmark.task; }

class LmEval : public testing::TestWithParam<Benchmark> {
protected:
    /// The rows of a file; of ready requests each question's document.
    static std::vector<std::string> rows_of(const std::string& file) {
        std::vector<std::string> rows;
        data::for_each_line(data::read_maybe_gzipped(file), file, [&](std::string_view line, const std::string& where) {
            if (!file.ends_with(".gz")) return rows.emplace_back(line), void();
            const auto request = core::parse_json(line, where);
            if (request["idx"] == 0) rows.push_back(request["doc"].dump());
        });
        return rows;
    }

    /// A folder with those rows that the fixture names, and what stands beside them.
    void write_rows(const core::Json& expected, const std::string& file) const {
        const auto rows = rows_of(file);
        std::ofstream out(folder_ / "rows.jsonl");
        for (const auto& row : expected["rows"]) out << rows.at(row.get<std::size_t>()) << '\n';
        if (const auto examples = shared_file("eval/mmlu_dev.jsonl")) {
            std::filesystem::copy_file(*examples, folder_ / "mmlu_dev.jsonl");
        }
    }

    /// Results by question.
    static std::vector<std::vector<double>> log_likelihoods(const std::string& results) {
        std::vector<std::vector<double>> all;
        std::istringstream lines(core::read_text(results));
        std::string line;
        for (std::getline(lines, line); std::getline(lines, line);) {
            all.push_back(core::parse_json(line, results)["result"]["log_likelihoods"].get<std::vector<double>>());
        }
        return all;
    }

    TemporaryDirectory folder_;
};

void expect_near(const std::vector<double>& seen, const std::vector<double>& expected, std::size_t question) {
    ASSERT_EQ(seen.size(), expected.size()) << "question " << question;
    for (std::size_t i = 0; i < seen.size(); ++i) {
        EXPECT_NEAR(seen[i], expected[i], 1e-3 * std::abs(expected[i])) << "question " << question << ", choice " << i;
    }
}

double mean(const core::Json& zeros_and_ones) {
    double sum = 0;
    for (const auto& value : zeros_and_ones) sum += value.get<double>();
    return sum / static_cast<double>(zeros_and_ones.size());
}

TEST_P(LmEval, ScoresEveryQuestionAlike) {
    const auto [task, name] = GetParam();
    const auto model = default_model();
    if (!model) GTEST_SKIP() << "MHA2MLA_MODEL names no model: ./dev test sets it";
    const std::string path = MHA2MLA_FIXTURES "/eval/choices_smollm2.json";
    const auto fixture = core::parse_json(core::read_text(path), path);
    const auto& expected = fixture.at(name);
    const auto file = shared_file("eval/" + expected["file"].get<std::string>());
    if (!file) GTEST_SKIP() << expected["file"] << " is not in MHA2MLA_DATA";
    const bool requests = task == "requests";
    if (!requests) write_rows(expected, *file);
    const auto results = folder_ / "results.jsonl";
    const auto count = expected["rows"].size();
    const auto outcome =
        run({"eval", *model, "--task", task, "--data", requests ? *file : folder_ / "rows.jsonl", "--limit",
             std::to_string(count), "--weights", "f32", "--kv-cache", "f32", "--results", results, "--json"})
            .json();
    const auto seen = log_likelihoods(results);
    ASSERT_EQ(seen.size(), count);
    for (std::size_t i = 0; i < count; ++i) {
        expect_near(seen[i], expected["log_likelihood"][i].get<std::vector<double>>(), i);
    }
    EXPECT_DOUBLE_EQ(outcome["tasks"][0]["accuracy"], mean(expected["acc"]));
    if (!expected.contains("acc_norm")) return;
    EXPECT_DOUBLE_EQ(outcome["tasks"][0]["accuracy_norm"], mean(expected["acc_norm"]));
}

INSTANTIATE_TEST_SUITE_P(DefaultModel, LmEval,
                         testing::Values(Benchmark{"arc-easy", "arc_easy"}, Benchmark{"piqa", "piqa"},
                                         Benchmark{"winogrande", "winogrande"}, Benchmark{"hellaswag", "hellaswag"},
                                         Benchmark{"arc-challenge", "arc_challenge"},
                                         Benchmark{"openbookqa", "openbookqa"},
                                         Benchmark{"commonsenseqa", "commonsense_qa"}, Benchmark{"mmlu", "mmlu"},
                                         Benchmark{"requests", "hellaswag_5shot"}),
                         [](const auto& instance) { return instance.param.fixture; });

}  // namespace
}  // namespace mha2mla::tests
