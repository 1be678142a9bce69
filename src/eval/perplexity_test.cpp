#include "eval/perplexity.h"

#include <cmath>
#include <gtest/gtest.h>

#include "core/error.h"

namespace mha2mla::eval {
namespace {

/// Six windows of 3 tokens; the score of a token is its value over 10.
class Perplexity : public testing::Test {
protected:
    PerplexityResult run(const PerplexityOptions& options) {
        return perplexity(text_, options, score_, progress_, stop_.get_token());
    }

    data::TokenWindows text_{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 99}, 3};
    WindowScorer score_ = [](std::span<const int> tokens, std::size_t first) {
        std::vector<double> scores;
        for (const int token : tokens.subspan(first)) scores.push_back(token / 10.0);
        return scores;
    };
    core::Progress progress_;
    std::stop_source stop_;
};

TEST_F(Perplexity, IsTheExponentialOfTheMeanOverWindows) {
    // Windows 1 and 2: tokens 4, 5 and 7, 8: means 0.45 and 0.75.
    const auto result = run({.first = 1, .windows = 2});
    EXPECT_NEAR(result.perplexity, std::exp(0.6), 1e-12);
    EXPECT_EQ(result.tokens, 4);
    ASSERT_EQ(result.window_nll.size(), 2u);
    EXPECT_NEAR(result.window_nll[1], 0.75, 1e-12);
}

TEST_F(Perplexity, OnlyTheLastTokensOfAWindowCountWhereAskedFor) {
    const auto result = run({.first = 1, .windows = 2, .scored = 1});  // tokens 5 and 8
    EXPECT_NEAR(result.perplexity, std::exp(0.65), 1e-12);
    EXPECT_NEAR(result.standard_error, std::exp(0.65) * 0.15, 1e-12) << "spread 0.15 over the root of 2 - 1";
}

TEST_F(Perplexity, OverlappingWindowsCountEachTokenOnce) {
    text_ = data::TokenWindows({0, 1, 2, 3, 4, 5, 6, 7}, 4, 2);
    const auto result = run({.scored = 2});  // tokens 1 to 3, then 4 and 5, then 6 and 7
    EXPECT_EQ(result.tokens, 7);
    EXPECT_NEAR(result.perplexity, std::exp(0.4), 1e-12);
}

TEST_F(Perplexity, ZeroWindowsMeansAllThatFollow) {
    EXPECT_EQ(run({.first = 4}).window_nll.size(), 2u);
    EXPECT_EQ(run({}).tokens, 12);
}

TEST_F(Perplexity, RefusesMoreWindowsThanTheTextHas) {
    EXPECT_THROW(run({.first = 5, .windows = 2}), core::Error);
    EXPECT_THROW(run({.first = 6}), core::Error);
    EXPECT_THROW(run({.first = -1, .windows = 1}), core::Error);
}

TEST_F(Perplexity, StopsWhenAsked) {
    stop_.request_stop();
    EXPECT_THROW(run({}), core::Cancelled);
}

}  // namespace
}  // namespace mha2mla::eval
