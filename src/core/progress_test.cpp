#include "core/progress.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <sstream>

#include "core/error.h"

namespace mha2mla::core {
namespace {

TEST(Progress, FormatsDurations) {
    EXPECT_EQ(format_duration(3), "3 s");
    EXPECT_EQ(format_duration(130), "2 min 10 s");
    EXPECT_EQ(format_duration(3900), "1 h 5 min");
}

TEST(Progress, PrintsATenthAtATimeToAFile) {
    std::ostringstream stream;
    ProgressBar bar(stream, false, std::chrono::seconds(0));
    bar.begin("convert", 100);
    for (int done = 1; done <= 100; ++done) bar.update(done, "layer");
    bar.end();
    const auto text = stream.str();
    EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 12);
    EXPECT_GE(std::count(text.begin(), text.end(), '\n'), 10);
    EXPECT_NE(text.find("convert"), std::string::npos);
    EXPECT_EQ(text.find('\r'), std::string::npos) << "a file gets no cursor movements";
}

TEST(Progress, PrintsALineToAFileAsSoonAsItsPatienceIsOver) {
    std::ostringstream stream;
    ProgressBar bar(stream, false, std::chrono::seconds(0));
    bar.begin("a day's work", 1'000'000);
    bar.update(1, "");
    bar.update(2, "");
    EXPECT_TRUE(stream.str().starts_with("a day's work")) << stream.str();
    EXPECT_EQ(std::ranges::count(stream.str(), '\n'), 1);
}

TEST(Progress, ShowsNothingOfAShortTask) {
    std::ostringstream stream;
    ProgressBar bar(stream, false, std::chrono::hours(1));
    bar.begin("blink", 10);
    bar.update(10, "");
    bar.end();
    EXPECT_EQ(stream.str(), "");
}

TEST(Progress, SurvivesMoreStepsThanAnnounced) {
    std::ostringstream stream;
    ProgressBar bar(stream, true, std::chrono::seconds(0));
    bar.begin("read", 0);
    bar.update(5, "");
    bar.end();
    EXPECT_NE(stream.str().find("[########################]"), std::string::npos);
}

TEST(Progress, StopsWhenAsked) {
    std::stop_source source;
    EXPECT_NO_THROW(throw_if_stopped(source.get_token()));
    source.request_stop();
    EXPECT_THROW(throw_if_stopped(source.get_token()), Cancelled);
}

}  // namespace
}  // namespace mha2mla::core
