#include "calibrate/calibration.h"

#include <algorithm>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
#include "core/progress.h"
#include "parallel/test_support.h"

namespace mha2mla::calibrate {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;
using parallel::test::Threads;
using testing::HasSubstr;

const data::TextWindows text{
    {{5, 17, 99, 3, 44, 81, 7, 12, 60, 33}, {64, 2, 2, 120, 31, 8, 90, 15, 77}, {9, 8, 7, 6, 5, 4, 3, 2}}, "a text"};

Checkpoint fixture(const std::string& name) { return Checkpoint::open(fs::path(MHA2MLA_FIXTURES) / "models" / name); }

/// Every file below a directory, by name.
std::map<std::string, std::string> contents_of(const fs::path& directory) {
    std::map<std::string, std::string> contents;
    for (const auto& entry : fs::recursive_directory_iterator(directory)) {
        if (!entry.is_regular_file()) continue;
        contents[fs::relative(entry.path(), directory).string()] = core::read_text(entry.path());
    }
    return contents;
}

class CalibrationTest : public testing::Test {
protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        root_ = fs::path(testing::TempDir()) / (std::string("mha2mla_calibration_") + test->name());
        fs::remove_all(root_);
        fs::create_directory(root_);
    }
    void TearDown() override { fs::remove_all(root_); }

    CalibrationOptions options(const std::string& name, std::size_t memory_bytes = std::size_t{1} << 30) const {
        return {.moments = {.sinks = 2, .queries = 3, .first_query = 3},
                .rest = {.memory_bytes = memory_bytes, .spill_directory = root_},
                .statistics = root_ / name};
    }
    static void finish(Calibration& calibration, const Checkpoint& source) {
        for (int layer = 0; layer < source.config().num_hidden_layers; ++layer) calibration.next({});
        calibration.finish();
    }
    std::string error_of(const Checkpoint& source, const data::TextWindows& tokens,
                         const CalibrationOptions& options) const {
        try {
            const Calibration calibration(source, tokens, options);
        } catch (const core::Error& error) {
            return error.what();
        }
        return "no error";
    }

    fs::path root_;
    const Checkpoint source_ = fixture("tiny-gqa");
};

TEST_F(CalibrationTest, IsTheMomentsOfOneLayerAfterTheOther) {
    Calibration calibration(source_, text, {.moments = {.sinks = 2, .queries = 3, .first_query = 3}});
    LayerWalk walk(source_, text.windows, model::ModelOptions{});
    for (int layer = 0; layer < source_.config().num_hidden_layers; ++layer) {
        const MomentOptions expected{
            .sinks = 2, .queries = 3, .first_query = 3, .seed = static_cast<std::uint64_t>(layer)};
        EXPECT_TRUE(torch::equal(calibration.next({}).key_covariance,
                                 measure_attention_moments(walk, expected, {}).key_covariance));
    }
}

TEST_F(CalibrationTest, SavedStatisticsAreWhatTheConversionSaw) {
    Calibration calibration(source_, text, options("statistics"));
    std::vector<AttentionMoments> measured;
    for (int layer = 0; layer < 2; ++layer) measured.push_back(calibration.next({}));
    calibration.finish();
    const Statistics saved(root_ / "statistics", source_, options("").moments);
    EXPECT_EQ(saved.text(), record_of(text));
    EXPECT_EQ(saved.text().tokens, 27);
    for (int layer = 0; layer < 2; ++layer) {
        const auto moments = saved.layer(layer);
        EXPECT_TRUE(torch::equal(moments.key_covariance, measured[static_cast<std::size_t>(layer)].key_covariance));
        EXPECT_TRUE(torch::equal(moments.pairs.tb, measured[static_cast<std::size_t>(layer)].pairs.tb));
    }
    EXPECT_FALSE(torch::equal(saved.layer(0).pairs.tb, saved.layer(1).pairs.tb));
}

TEST_F(CalibrationTest, ServesNoOtherModelAndNoOtherOptions) {
    Calibration calibration(source_, text, options("statistics"));
    finish(calibration, source_);
    auto moments = options("").moments;
    EXPECT_THROW(Statistics(root_ / "statistics", fixture("tiny-mha"), moments), core::Error);
    moments.sinks = 1;
    EXPECT_THROW(Statistics(root_ / "statistics", source_, moments), core::Error);
}

TEST_F(CalibrationTest, MemoryChangesNoBit) {
    Calibration all(source_, text, options("memory"));
    finish(all, source_);
    Calibration none(source_, text, options("disk", 0));
    finish(none, source_);
    EXPECT_EQ(contents_of(root_ / "memory"), contents_of(root_ / "disk"));
}

/// Stopped in the second layer of two: the first is there, and the result is the same to the bit.
TEST_F(CalibrationTest, GoesOnWhereItWasInterrupted) {
    Calibration whole(source_, text, options("whole"));
    finish(whole, source_);
    {
        Calibration interrupted(source_, text, options("resumed"));
        interrupted.next({});
        std::stop_source stop;
        stop.request_stop();
        EXPECT_THROW(interrupted.next(stop.get_token()), core::Cancelled);
    }
    EXPECT_FALSE(fs::exists(root_ / "resumed"));
    EXPECT_TRUE(fs::exists(root_ / "resumed.partial"));
    Calibration resumed(source_, text, options("resumed", 0));
    EXPECT_EQ(resumed.layers_from_before(), 1);
    finish(resumed, source_);
    EXPECT_FALSE(fs::exists(root_ / "resumed.partial"));
    const auto contents = contents_of(root_ / "resumed");
    EXPECT_EQ(contents.size(), 4u);  // two layers, the origin, the windows
    EXPECT_EQ(contents, contents_of(root_ / "whole"));
}

double difference(const torch::Tensor& a, const torch::Tensor& b) {
    return ((a - b).abs().max() / b.abs().max()).item<double>();
}

void expect_equal(const AttentionMoments& a, const AttentionMoments& b, double tolerance) {
    EXPECT_LT(difference(a.input_mean, b.input_mean), tolerance);
    EXPECT_LT(difference(a.token_covariance, b.token_covariance), tolerance);
    EXPECT_LT(difference(a.value_covariance, b.value_covariance), tolerance);
    EXPECT_LT(difference(a.key_covariance, b.key_covariance), tolerance);
    EXPECT_LT(difference(a.query_gram, b.query_gram), tolerance);
    EXPECT_LT(difference(a.logit_cost, b.logit_cost), tolerance);
    EXPECT_LT(difference(a.pairs.ta, b.pairs.ta), tolerance);
    EXPECT_LT(difference(a.pairs.tt, b.pairs.tt), tolerance);
    EXPECT_LT(difference(a.inverse_power, b.inverse_power), tolerance);
}

/// Two processes for three windows, the second one interrupted together with the first after a layer.
TEST_F(CalibrationTest, SharedAmongProcessesIsTheSame) {
    Calibration whole(source_, text, options("whole"));
    finish(whole, source_);
    for (int run = 0; run < 2; ++run) {
        Threads(2).run([&](const Threads::Process& process) {
            auto shared = options("shared");
            shared.processes = &process;
            Calibration calibration(source_, text, shared);
            EXPECT_EQ(calibration.layers_from_before(), run);
            if (run == 0) {
                calibration.next({});
            } else {
                finish(calibration, source_);
            }
        });
    }
    const Statistics expected(root_ / "whole", source_, options("").moments);
    const Statistics found(root_ / "shared", source_, options("").moments);
    for (int layer = 0; layer < 2; ++layer) expect_equal(found.layer(layer), expected.layer(layer), 1e-6);
    EXPECT_EQ(std::distance(fs::directory_iterator(root_), fs::directory_iterator()), 2) << "nothing else is left";
}

TEST_F(CalibrationTest, MoreProcessesThanWindowsAreRefused) {
    Threads(4).run([&](const Threads::Process& process) {
        auto shared = options("");
        shared.statistics.clear();
        shared.processes = &process;
        EXPECT_THROW(Calibration(source_, text, shared), core::Error);
    });
}

TEST_F(CalibrationTest, AnInterruptedOneKeepsItsText) {
    EXPECT_FALSE(interrupted_text("", 128));
    EXPECT_FALSE(interrupted_text(root_ / "statistics", 128));
    Calibration interrupted(source_, text, options("statistics"));
    interrupted.next({});
    const auto kept = interrupted_text(root_ / "statistics", 128);
    ASSERT_TRUE(kept);
    EXPECT_EQ(kept->windows, text.windows);
    EXPECT_EQ(kept->origin, text.origin);
    EXPECT_THROW(interrupted_text(root_ / "statistics", 100), core::Error) << "it has the token 120";
}

TEST_F(CalibrationTest, RefusesToGoOnWithAnotherTextModelOrOptions) {
    {
        Calibration interrupted(source_, text, options("statistics"));
        interrupted.next({});
    }
    auto other = text;
    other.windows[1][3] += 1;
    EXPECT_THAT(error_of(source_, other, options("statistics")),
                testing::AllOf(HasSubstr("another text"), HasSubstr("remove"), HasSubstr("statistics.partial")));
    EXPECT_THAT(error_of(fixture("tiny-mha"), text, options("statistics")), HasSubstr("'model' differs"));
    auto sinks = options("statistics");
    sinks.moments.sinks = 1;
    EXPECT_THAT(error_of(source_, text, sinks), HasSubstr("'sinks' differs"));
    EXPECT_EQ(error_of(source_, text, options("statistics")), "no error");
}

TEST_F(CalibrationTest, RefusesToGoOnFromDamagedFiles) {
    const auto partial = root_ / "statistics.partial";
    for (const std::string name : {"hidden-001/model.safetensors", "layer-000/model.safetensors", "statistics.json"}) {
        {
            Calibration interrupted(source_, text, options("statistics"));
            interrupted.next({});
        }
        fs::resize_file(partial / name, fs::file_size(partial / name) - 4);
        EXPECT_THAT(error_of(source_, text, options("statistics")),
                    testing::AllOf(HasSubstr(fs::path(name).filename().string()), HasSubstr("remove")));
        fs::remove_all(partial);
    }
}

TEST_F(CalibrationTest, RefusesTextThatIsOfNoUse) {
    EXPECT_THAT(error_of(source_, {}, options("statistics")), HasSubstr("no text"));
    EXPECT_THAT(error_of(source_, {{{1, 2, 3}}, "short"}, options("statistics")), HasSubstr("at least 5 tokens"));
    EXPECT_THAT(error_of(source_, {{{1, 2, 3, 4, 5, 128}}, "foreign"}, options("statistics")), HasSubstr("vocabulary"));
}

}  // namespace
}  // namespace mha2mla::calibrate
