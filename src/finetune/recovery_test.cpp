#include "finetune/recovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <memory>
#include <utility>
#include <vector>

#include "core/file.h"
#include "finetune/test_support.h"
#include "model/weights.h"

namespace mha2mla::finetune {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;
using checkpoint::test::error_of;
using testing::HasSubstr;

/// Notes tasks and how far they came, and stops at the end of one.
class Watcher : public core::Progress {
public:
    explicit Watcher(std::string stop_at = {}) : stop_at_(std::move(stop_at)) {}
    void begin(const std::string& task, std::int64_t total) override { tasks_.push_back({task, total, 0}); }
    void update(std::int64_t done, const std::string&) override {
        tasks_.back().done = done;
        if (tasks_.back().name == stop_at_) stop_.request_stop();
    }

    struct Task {
        std::string name;
        std::int64_t total = 0;
        std::int64_t done = 0;
    };
    const std::vector<Task>& tasks() const { return tasks_; }
    std::stop_token token() const { return stop_.get_token(); }

private:
    std::string stop_at_;
    std::vector<Task> tasks_;
    std::stop_source stop_;
};

class RecoveryTest : public testing::Test {
protected:
    RecoveryTest() : pair_(directory_.path()) {
        request_.options = test::tiny_options();
        request_.target = directory_.path() / "recovered";
        request_.dtype = core::DType::f32;
        request_.command = "mha2mla finetune ...";
    }
    RecoveryReport recover() {
        core::Progress silent;
        return recover(silent, {});
    }
    RecoveryReport recover(core::Progress& progress, const std::stop_token& stop) {
        return finetune::recover({pair_.converted(), pair_.source()},
                                 hold_out(test::tiny_windows(), request_.options.held_out, "some text"), request_,
                                 progress, stop);
    }
    std::string refusal(const Checkpoint& converted, const Checkpoint& source) {
        return error_of([&] { check_request({converted, source}, request_); });
    }

    checkpoint::test::TemporaryDirectory directory_;
    test::TinyPair pair_;
    RecoveryRequest request_;
};

/// The source runs elsewhere where that is faster and something is asked of it.
TEST_F(RecoveryTest, AsksForTheSourcesStatesInBf16) {
    int asked = 0;
    request_.source_states = [&] {
        ++asked;
        return std::make_unique<test::TorchStates>(pair_.load_source());
    };
    request_.options.tokens = 100;
    request_.replace = true;
    const auto times_asked = [&](const std::vector<Stage>& stages, bool bf16) {
        request_.options.stages = stages;
        request_.options.bf16 = bf16;
        recover();
        return std::exchange(asked, 0);
    };
    EXPECT_EQ(times_asked({{Objective::layerwise, 1}, {Objective::distill, 1}}, true), 1);
    EXPECT_EQ(times_asked({{Objective::layerwise, 1}, {Objective::distill, 1}}, false), 0);
    EXPECT_EQ(times_asked({{Objective::cross_entropy, 1}}, true), 0);
}

TEST_F(RecoveryTest, WritesAModelWithWhatItLearned) {
    request_.options.tokens = 2000;
    const auto report = recover();
    EXPECT_LT(report.perplexity_after, report.perplexity_before);
    const auto written = Checkpoint::open(request_.target);
    for (const auto& spec : checkpoint::expected_tensors(written.config())) {
        const auto before = model::read_tensor(pair_.converted(), spec.name, spec.shape);
        const auto after = model::read_tensor(written, spec.name, spec.shape);
        const bool learned = spec.name.find("self_attn") != std::string::npos;
        EXPECT_EQ(torch::equal(before, after), !learned) << spec.name;
    }
    const auto record = core::parse_json(core::read_text(request_.target / "finetune.json"), "finetune.json");
    EXPECT_EQ(record["options"]["objective"], "layerwise,distill,cross-entropy:0.5");
    EXPECT_EQ(record["tokens"], report.tokens);
    EXPECT_THAT(core::read_text(request_.target / "README.md"), HasSubstr("## Recovered"));
    EXPECT_THAT(core::read_text(request_.target / "loss.svg"), HasSubstr("</svg>"));
    EXPECT_TRUE(fs::exists(request_.target / "log.jsonl"));
    EXPECT_FALSE(fs::exists(core::partial_path(request_.target)));
}

/// The perplexity that the report names is the written model's.
TEST_F(RecoveryTest, ReportsTheModelThatItWrote) {
    const auto text = hold_out(test::tiny_windows(), 2, "some text");
    for (const auto dtype : {core::DType::f32, core::DType::bf16}) {
        request_.dtype = dtype;
        request_.replace = true;  // what the run before wrote
        const auto report = recover();
        model::CausalLm written(Checkpoint::open(request_.target), model::ModelOptions{});
        const auto found = std::exp(mean_nll(written, text.held_out, torch::kCPU));
        // Frozen weights of the random model are rounded on disk, too.
        EXPECT_NEAR(found, report.perplexity_after, dtype == core::DType::f32 ? 1e-9 : 1e-2 * found);
    }
}

TEST_F(RecoveryTest, ShowsHowFarItsMeasurementsAreAndStopsWithinThem) {
    Watcher watcher;
    recover(watcher, watcher.token());
    std::vector<std::string> names;
    for (const auto& task : watcher.tasks()) {
        names.push_back(task.name);
        EXPECT_EQ(task.done, task.total) << task.name;
    }
    EXPECT_THAT(names, testing::ElementsAre("perplexity of the source", "perplexity before", "fine-tuning",
                                            "perplexity after"));
    fs::remove_all(request_.target);
    Watcher impatient("perplexity after");
    EXPECT_THROW(recover(impatient, impatient.token()), core::Cancelled);
    EXPECT_FALSE(fs::exists(request_.target));
    request_.resume = true;
    recover();  // from the end of the training
    EXPECT_TRUE(fs::exists(request_.target));
}

TEST_F(RecoveryTest, LearnsForTheCacheThatItIsToRunWith) {
    request_.options.kv_format = cache::parse_cache_format("int2", "test");
    request_.options.tokens = 2000;
    const auto report = recover();
    EXPECT_LT(report.perplexity_after, report.perplexity_before);
    model::ModelOptions rounded;
    rounded.emulated_cache = request_.options.kv_format;
    model::CausalLm written(Checkpoint::open(request_.target), rounded);
    const auto text = hold_out(test::tiny_windows(), 2, "some text");
    EXPECT_NEAR(std::exp(mean_nll(written, text.held_out, torch::kCPU)), report.perplexity_after, 1e-9);
}

TEST_F(RecoveryTest, RefusesWhatDoesNotBelongTogether) {
    EXPECT_EQ(refusal(pair_.converted(), pair_.source()), "");
    EXPECT_THAT(refusal(pair_.source(), pair_.source()), HasSubstr("not converted"));
    EXPECT_THAT(refusal(pair_.converted(), pair_.converted()), HasSubstr("--teacher"));
    const auto other = Checkpoint::open(fs::path(MHA2MLA_FIXTURES) / "models/tiny-gqa");
    EXPECT_THAT(refusal(pair_.converted(), other), HasSubstr("other sizes"));
}

TEST_F(RecoveryTest, RefusesToBeginAgainOverAnUnfinishedRun) {
    fs::create_directories(core::partial_path(request_.target));
    EXPECT_THAT(refusal(pair_.converted(), pair_.source()), HasSubstr("--resume"));
    request_.resume = true;
    EXPECT_EQ(refusal(pair_.converted(), pair_.source()), "");
    fs::create_directories(request_.target);
    EXPECT_THAT(refusal(pair_.converted(), pair_.source()), HasSubstr("--force"));
}

TEST(HoldOut, TakesWindowsFromEverywhere) {
    std::vector<std::vector<int>> windows;
    for (int i = 0; i < 10; ++i) windows.push_back({i, i});
    const auto text = hold_out(windows, 2, "text");
    EXPECT_EQ(text.held_out, (std::vector<std::vector<int>>{{4, 4}, {9, 9}}));
    EXPECT_EQ(text.windows.size(), 8u);
}

TEST(HoldOut, RefusesTooLittleText) {
    EXPECT_THAT(error_of([] {
                    hold_out({{1, 2}, {3, 4}, {5, 6}}, 2, "short.txt");
                }),
                testing::AllOf(HasSubstr("short.txt"), HasSubstr("at least 4 windows")));
    EXPECT_NE(error_of([] { hold_out({}, 0, "none"); }), "");
}

}  // namespace
}  // namespace mha2mla::finetune
