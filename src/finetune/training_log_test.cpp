#include "finetune/training_log.h"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/test_support.h"
#include "core/file.h"

namespace mha2mla::finetune {
namespace {

using checkpoint::test::error_of;
using testing::HasSubstr;

LogEntry entry(std::int64_t step, double loss) {
    return {.objective = step < 2 ? Objective::layerwise : Objective::distill,
            .step = step,
            .tokens = 10 * (step + 1),
            .loss = loss,
            .gradient_norm = 1,
            .learning_rate = 1e-3,
            .seconds = 0.5};
}

class TrainingLogTest : public testing::Test {
protected:
    const std::filesystem::path& path() const { return path_; }

    checkpoint::test::TemporaryDirectory directory_;
    std::filesystem::path path_ = directory_.path() / "log.jsonl";
};

TEST_F(TrainingLogTest, DropsWhatCameAfterTheSnapshot) {
    {
        TrainingLog log(path(), 0, true);
        for (int step = 0; step < 4; ++step) log.add(entry(step, 1.0 / (step + 3)));
    }
    std::ofstream(path(), std::ios::app) << "{\"half a li";
    TrainingLog log(path(), 2, true);
    ASSERT_EQ(log.entries().size(), 2u);
    EXPECT_EQ(log.entries()[1].loss, 0.25);
    log.add(entry(2, 0.125));
    const auto text = core::read_text(path());
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
    EXPECT_EQ(TrainingLog(path(), 3, false).entries()[2].loss, 0.125);
}

TEST_F(TrainingLogTest, SaysThatItCannotBeFlushedWhereItIsGone) {
    TrainingLog log(path(), 0, true);
    log.add(entry(0, 1));
    log.sync();
    std::filesystem::remove(path());
    EXPECT_THAT(error_of([&] { log.sync(); }), HasSubstr("log.jsonl"));
    EXPECT_EQ(error_of([&] { TrainingLog(path(), 0, false).sync(); }), "") << "another process writes it";
}

/// A batch of other text has a loss of its own; weights that broke have a gradient of their own, too.
TEST(IsSpike, NeedsALossAndAGradientFarAboveTheLastOnes) {
    std::vector<LogEntry> entries;
    const auto spikes = [&](double loss, double gradient_norm) {
        return is_spike(entries, Objective::distill, loss, gradient_norm);
    };
    for (int step = 2; step < 18; ++step) {
        EXPECT_FALSE(spikes(100, 100)) << entries.size() << " steps tell nothing";
        entries.push_back(entry(step, 1 + 0.1 * step));
    }
    EXPECT_TRUE(spikes(9, 5));
    EXPECT_FALSE(spikes(9, 3)) << "its gradient is one of many";
    EXPECT_FALSE(spikes(5, 5)) << "its loss is one of many";
    entries.push_back(entry(18, 1000));
    EXPECT_TRUE(spikes(9, 5)) << "a single loss before is no measure";
    EXPECT_FALSE(is_spike(entries, Objective::layerwise, 100, 100)) << "other objectives tell nothing";
    entries.push_back(entry(1, 1));
    EXPECT_FALSE(spikes(100, 100)) << "a stage of another objective came between";
}

TEST_F(TrainingLogTest, BeginsAnew) {
    TrainingLog(path(), 0, true).add(entry(0, 1));
    EXPECT_TRUE(TrainingLog(path(), 0, true).entries().empty());
    EXPECT_EQ(core::read_text(path()), "");
}

TEST_F(TrainingLogTest, RefusesALogThatIsCutOffOrDamaged) {
    TrainingLog(path(), 0, true).add(entry(0, 1));
    EXPECT_THAT(error_of([&] { TrainingLog(path(), 2, true); }), HasSubstr("cut off"));
    core::write_text(directory_.path() / "damaged", "{\"objective\": \"distill\"}\n");
    EXPECT_THAT(error_of([&] { TrainingLog(directory_.path() / "damaged", 1, true); }), HasSubstr("step"));
}

TEST(LossPlot, HasACurveForEachObjective) {
    std::vector<LogEntry> entries;
    for (int step = 0; step < 6; ++step) entries.push_back(entry(step, 1.0 / (step + 1)));
    const auto svg = loss_plot(entries);
    EXPECT_THAT(svg, testing::AllOf(HasSubstr("layerwise"), HasSubstr("distill"), HasSubstr("</svg>")));
    std::size_t curves = 0;
    for (auto at = svg.find("<polyline"); at != std::string::npos; at = svg.find("<polyline", at + 1)) ++curves;
    EXPECT_EQ(curves, 2u);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(LossPlot, OfNothingOrOfOneStepIsStillAPicture) {
    for (const auto& entries : {std::vector<LogEntry>{}, {entry(0, 0)}}) {
        const auto svg = loss_plot(entries);
        EXPECT_THAT(svg, HasSubstr("</svg>"));
        EXPECT_EQ(svg.find("nan"), std::string::npos);
        EXPECT_EQ(svg.find("inf"), std::string::npos);
    }
}

}  // namespace
}  // namespace mha2mla::finetune
