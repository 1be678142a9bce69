#include "finetune/trainer.h"

#include <algorithm>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <limits>
#include <map>
#include <numeric>

#include "checkpoint/safetensors.h"
#include "finetune/test_support.h"
#include "model/weights.h"
#include "parallel/test_support.h"

namespace mha2mla::finetune {
namespace {

namespace fs = std::filesystem;
using checkpoint::test::error_of;
using testing::HasSubstr;
using Weights = std::map<std::string, torch::Tensor>;

/// Asks for a stop after so many reports of progress.
class StopAfter : public core::Progress {
public:
    explicit StopAfter(int reports) : left_(reports) {}
    void update(std::int64_t, const std::string&) override {
        if (--left_ == 0) source_.request_stop();
    }
    std::stop_token token() const { return source_.get_token(); }

private:
    int left_;
    std::stop_source source_;
};

class TrainerTest : public testing::Test {
protected:
    TrainerTest() : pair_(directory_.path()) {}

    TrainerSetup setup(const std::string& name) const {
        TrainerSetup result;
        result.directory = directory_.path() / name;
        result.request = "a run";
        return result;
    }
    Weights train(const TrainerSetup& setup) { return train(setup, test::tiny_options()); }
    Weights train(const TrainerSetup& setup, const Options& options) {
        auto models = pair_.load();
        Trainer trainer(models, windows_, options, setup);
        core::Progress silent;
        trainer.run(silent, {});
        log_ = trainer.log();
        Weights weights;
        for (const auto& parameter : trainer.parameters()) weights[parameter.name] = parameter.value.detach();
        return weights;
    }
    /// Trains on every window once, in four batches; the bad ones hold a token whose embedding is broken.
    Weights train_with_bad_batches(const TrainerSetup& setup, const std::vector<std::size_t>& bad,
                                   const std::stop_token& stop = {}) {
        auto options = test::tiny_options();
        options.stages = {{Objective::cross_entropy, 1}};
        options.tokens = 110;
        auto windows = windows_;
        const auto batches = plan_batches(windows, options).front();
        EXPECT_EQ(batches.size(), 4u);
        for (const auto batch : bad) windows[batches[batch].windows.front()].front() = 15;
        auto models = pair_.load();
        models.student->decoder()->embed_tokens->weight.detach()[15].fill_(std::numeric_limits<float>::quiet_NaN());
        Trainer trainer(models, windows, options, setup);
        core::Progress silent;
        trainer.run(silent, stop);
        log_ = trainer.log();
        Weights weights;
        for (const auto& parameter : trainer.parameters()) weights[parameter.name] = parameter.value.detach();
        return weights;
    }
    /// Stops after some steps, with a snapshot.
    void train_and_stop(const TrainerSetup& setup, int steps, const Options& options = test::tiny_options()) {
        auto models = pair_.load();
        Trainer trainer(models, windows_, options, setup);
        StopAfter progress(steps);
        EXPECT_THROW(trainer.run(progress, progress.token()), core::Cancelled);
    }

    /// The same as several processes; returns the weights.
    Weights stop_together(int processes, const TrainerSetup& setup, int steps,
                          const model::ModelOptions& options = {}) {
        Weights weights;
        parallel::test::Threads(processes).run([&](const parallel::Communicator& process) {
            auto models = pair_.load(options);
            auto shared = setup;
            shared.processes = &process;
            Trainer trainer(models, windows_, test::tiny_options(), shared);
            StopAfter progress(steps);
            EXPECT_THROW(trainer.run(progress, progress.token()), core::Cancelled);
            if (process.rank() > 0) return;
            for (const auto& parameter : trainer.parameters()) weights[parameter.name] = parameter.value.detach();
        });
        return weights;
    }

    checkpoint::test::TemporaryDirectory directory_;
    test::TinyPair pair_;
    const std::vector<std::vector<int>> windows_ = test::tiny_windows();
    std::vector<LogEntry> log_;
};

model::ModelOptions doubles() {
    model::ModelOptions options;
    options.dtype = torch::kFloat64;
    return options;
}

void expect_same_bits(const Weights& a, const Weights& b) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, tensor] : a) EXPECT_TRUE(torch::equal(tensor, b.at(name))) << name;
}

/// The mean loss of the first and of the last three steps of an objective.
std::pair<double, double> ends(const std::vector<LogEntry>& log, Objective objective) {
    std::vector<double> losses;
    for (const auto& entry : log) {
        if (entry.objective == objective) losses.push_back(entry.loss);
    }
    const auto mean = [](auto begin, auto end) {
        return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
    };
    return {mean(losses.begin(), losses.begin() + 3), mean(losses.end() - 3, losses.end())};
}

TEST_F(TrainerTest, MakesEveryObjectiveSmaller) {
    for (const auto objective : {Objective::layerwise, Objective::distill, Objective::cross_entropy}) {
        auto options = test::tiny_options();
        options.stages = {{objective, 1}};
        options.tokens = 3000;
        train(setup(name_of(objective)), options);
        const auto [first, last] = ends(log_, objective);
        EXPECT_LT(last, 0.7 * first) << name_of(objective);
    }
}

TEST_F(TrainerTest, GoesOnFromAStopBitForBit) {
    const auto whole = train(setup("whole"));
    const auto whole_log = log_;
    for (const int steps : {1, 5, 9, 13}) {
        auto stopped = setup("stopped-" + std::to_string(steps));
        train_and_stop(stopped, steps);
        stopped.resume = true;
        expect_same_bits(train(stopped), whole);
        ASSERT_EQ(log_.size(), whole_log.size());
        EXPECT_EQ(log_.back().loss, whole_log.back().loss);
        EXPECT_EQ(log_.back().tokens, whole_log.back().tokens);
    }
}

/// Only attention has moments in the first stage, and everything in the others.
TEST_F(TrainerTest, OfAllWeightsGoesOnFromAStopBitForBit) {
    auto options = test::tiny_options();
    options.trained = Trained::all;
    const auto whole = train(setup("whole"), options);
    for (const int steps : {1, 9}) {
        auto stopped = setup("stopped-" + std::to_string(steps));
        train_and_stop(stopped, steps, options);
        stopped.resume = true;
        expect_same_bits(train(stopped, options), whole);
    }
}

TEST_F(TrainerTest, InBf16GoesOnFromAStopBitForBit) {
    auto options = test::tiny_options();
    options.bf16 = true;
    const auto whole = train(setup("whole"), options);
    auto stopped = setup("stopped");
    train_and_stop(stopped, 9, options);
    stopped.resume = true;
    expect_same_bits(train(stopped, options), whole);
}

TEST_F(TrainerTest, LayerwiseLeavesAllButAttentionAsItIs) {
    auto options = test::tiny_options();
    options.trained = Trained::all;
    options.stages = {{Objective::layerwise, 1}};
    options.weight_decay = 0.1;
    const auto trained = train(setup("layerwise"), options);
    const auto before = pair_.load();
    for (const auto& parameter : before.student->named_parameters()) {
        EXPECT_EQ(torch::equal(trained.at(parameter.key()), parameter.value()), !is_of_attention(parameter.key()))
            << parameter.key();
    }
}

/// A process that is killed leaves steps behind that no snapshot holds, and half a line in the log.
TEST_F(TrainerTest, GoesOnFromTheLastSnapshotOfAKilledRun) {
    const auto whole = train(setup("whole"));
    auto killed = setup("killed");
    train_and_stop(killed, 4);
    fs::copy(killed.directory, directory_.path() / "copy", fs::copy_options::recursive);
    killed.resume = true;
    train_and_stop(killed, 3);  // three steps later, of which the copy knows only the log
    fs::copy(killed.directory / "log.jsonl", directory_.path() / "copy/log.jsonl",
             fs::copy_options::overwrite_existing);
    std::ofstream(directory_.path() / "copy/log.jsonl", std::ios::app) << "{\"objective\": \"dist";
    auto copy = setup("copy");
    copy.resume = true;
    expect_same_bits(train(copy), whole);
}

TEST_F(TrainerTest, KeepsTheNewestTwoSnapshots) {
    auto often = setup("often");
    often.save_every = std::chrono::duration<double>(0);
    train(often);
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(often.directory)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    ASSERT_EQ(names.size(), 3u) << testing::PrintToString(names);
    EXPECT_EQ(names[0], "log.jsonl");
}

TEST_F(TrainerTest, RefusesASnapshotOfAnotherRunAndADamagedOne) {
    auto stopped = setup("stopped");
    train_and_stop(stopped, 2);
    stopped.resume = true;
    auto other = stopped;
    other.request = "another run";
    EXPECT_THAT(error_of([&] { train(other); }), HasSubstr("other models, text or options"));
    const auto file = stopped.directory / "step-00000002/model.safetensors";
    fs::resize_file(file, fs::file_size(file) / 2);
    EXPECT_THAT(error_of([&] { train(stopped); }), HasSubstr("model.safetensors"));
}

TEST_F(TrainerTest, LeavesOutABatchWhoseLossIsNotFinite) {
    auto noted = setup("noted");
    std::vector<std::string> notes;
    noted.note = [&](const std::string& text) { notes.push_back(text); };
    for (const auto& [name, value] : train_with_bad_batches(noted, {2})) {
        EXPECT_TRUE(torch::isfinite(value).all().item<bool>()) << name;
    }
    EXPECT_EQ(log_.size(), 3u);
    EXPECT_THAT(notes,
                testing::ElementsAre(testing::AllOf(HasSubstr("step 2 of cross-entropy"), HasSubstr("left out"))));
}

TEST_F(TrainerTest, LeavesOutAfterAStopWhatItLeftOutBefore) {
    const auto whole = train_with_bad_batches(setup("whole"), {1, 2});
    auto stopped = setup("stopped");
    int notes = 0;
    for (int run = 0; run < 2; ++run) {  // one ends at the first bad batch, one at the second
        std::stop_source stop;
        stopped.note = [&](const std::string&) {
            ++notes;
            stop.request_stop();
        };
        EXPECT_THROW(train_with_bad_batches(stopped, {1, 2}, stop.get_token()), core::Cancelled);
        stopped.resume = true;
    }
    expect_same_bits(train_with_bad_batches(stopped, {1, 2}), whole);
    EXPECT_EQ(notes, 2);
}

TEST_F(TrainerTest, GivesUpAtTheThirdOnEnd) {
    train_with_bad_batches(setup("three"), {0, 1, 3});
    EXPECT_EQ(log_.size(), 1u) << "a good one came between";
    auto noted = setup("on-end");
    int notes = 0;
    noted.note = [&](const std::string&) { ++notes; };
    EXPECT_THAT(error_of([&] {
                    train_with_bad_batches(noted, {1, 2, 3});
                }),
                testing::AllOf(HasSubstr("diverges: step 3"), HasSubstr("third"), HasSubstr("--learning-rate")));
    EXPECT_EQ(notes, 2);
}

/// In fp64: AdamW makes a step of full length of what rounding leaves of a gradient of zero.
TEST_F(TrainerTest, ProcessesTogetherDoTheSame) {
    auto alone = pair_.load(doubles());
    Trainer single(alone, windows_, test::tiny_options(), setup("alone"));
    core::Progress quiet;
    single.run(quiet, {});
    Weights together;
    parallel::test::Threads(3).run([&](const parallel::Communicator& process) {
        auto models = pair_.load(doubles());
        auto shared = setup("together");
        shared.processes = &process;
        Trainer trainer(models, windows_, test::tiny_options(), shared);
        core::Progress silent;
        trainer.run(silent, {});
        if (process.rank() > 0) return;
        for (const auto& parameter : trainer.parameters()) together[parameter.name] = parameter.value.detach();
    });
    for (const auto& parameter : single.parameters()) {
        EXPECT_TRUE(torch::allclose(together.at(parameter.name), parameter.value, 1e-5, 1e-7)) << parameter.name;
    }
}

/// A snapshot holds the moments of all processes, and each takes its share of them again.
TEST_F(TrainerTest, GoesOnWithAnotherNumberOfProcesses) {
    auto alone = setup("alone"), shared = setup("shared");
    stop_together(1, alone, 5, doubles());
    stop_together(3, shared, 5, doubles());
    alone.resume = shared.resume = true;
    stop_together(1, alone, 4, doubles());
    stop_together(2, shared, 4, doubles());
    const checkpoint::SafetensorsSource expected(alone.directory / "step-00000009");
    const checkpoint::SafetensorsSource actual(shared.directory / "step-00000009");
    for (const auto& spec : expected.list()) {
        EXPECT_TRUE(torch::allclose(model::read_tensor(actual, spec, "shared"),
                                    model::read_tensor(expected, spec, "alone"), 1e-4, 1e-7))
            << spec.name;
    }
}

/// Whatever the number of processes, the same again gives the same bits.
TEST_F(TrainerTest, ProcessesGoOnFromAStopBitForBit) {
    auto stopped = setup("stopped");
    stop_together(2, stopped, 5);
    stopped.resume = true;
    expect_same_bits(stop_together(2, stopped, 6), stop_together(2, setup("whole"), 11));
}

/// One process is asked to stop: all do, once the snapshot is there.
TEST_F(TrainerTest, ProcessesStopTogether) {
    parallel::test::Threads(2).run([&](const parallel::Communicator& process) {
        auto models = pair_.load();
        auto shared = setup("shared");
        shared.processes = &process;
        Trainer trainer(models, windows_, test::tiny_options(), shared);
        StopAfter progress(process.rank() == 1 ? 3 : 1000);
        EXPECT_THROW(trainer.run(progress, progress.token()), core::Cancelled);
        EXPECT_TRUE(fs::exists(shared.directory / "step-00000003/position.json")) << process.rank();
    });
}

TEST_F(TrainerTest, RefusesAPositionThatTheRunDoesNotHave) {
    auto stopped = setup("stopped");
    train_and_stop(stopped, 2);
    stopped.resume = true;
    const auto file = stopped.directory / "step-00000002/position.json";
    auto position = core::parse_json(core::read_text(file), file.string());
    position["stage"] = 7;
    core::write_text(file, position.dump());
    EXPECT_THAT(error_of([&] { train(stopped); }), HasSubstr("does not have"));
}

TEST_F(TrainerTest, RemovesTheRemainsOfASnapshot) {
    auto stopped = setup("stopped");
    train_and_stop(stopped, 2);
    fs::create_directories(stopped.directory / "step-00000009.partial-abc");
    stopped.resume = true;
    train(stopped);
    EXPECT_FALSE(fs::exists(stopped.directory / "step-00000009.partial-abc"));
}

}  // namespace
}  // namespace mha2mla::finetune
