#include "runtime/sampler.h"

#include <cmath>
#include <gtest/gtest.h>
#include <map>

#include "core/error.h"

namespace mha2mla::runtime {
namespace {

/// Logits of tokens 0..4 with these probabilities.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
    std::vector<float> logits;
    for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
    return logits;
}

const std::vector<double> mixed{0.1, 0.4, 0.05, 0.3, 0.15};

/// How often each token is drawn in 20,000 draws.
std::map<int, double> frequencies(const SamplingOptions& options, const std::vector<float>& logits) {
    constexpr int draws = 20'000;
    Sampler sampler(options);
    std::map<int, double> counts;
    for (int i = 0; i < draws; ++i) counts[sampler.sample(logits, {})] += 1.0 / draws;
    return counts;
}

void expect_distribution(const std::map<int, double>& seen, const std::map<int, double>& expected) {
    ASSERT_EQ(seen.size(), expected.size());
    for (const auto& [token, probability] : expected) {
        ASSERT_TRUE(seen.contains(token)) << "token " << token;
        EXPECT_NEAR(seen.at(token), probability, 0.015) << "token " << token;
    }
}

TEST(Sampler, GreedyTakesTheBestAndTheFirstOfEquals) {
    Sampler sampler({});
    EXPECT_EQ(sampler.sample(logits_of(mixed), {}), 1);
    EXPECT_EQ(sampler.sample(std::vector<float>{0, 2, 2, 1}, {}), 1);
}

TEST(Sampler, ExcludedTokensAreNotChosen) {
    Sampler greedy({});
    EXPECT_EQ(greedy.sample(logits_of(mixed), {}, std::vector{1, 3}), 4);
    EXPECT_EQ(greedy.sample(logits_of(mixed), {}, std::vector{-1, 5}), 1) << "no tokens of this vocabulary";
    Sampler drawing({.temperature = 1});
    for (int i = 0; i < 200; ++i) EXPECT_NE(drawing.sample(logits_of(mixed), {}, std::vector{1}), 1);
    EXPECT_EQ(drawing.sample(logits_of(mixed), {}, std::vector{2, 0, 1, 3, 4}), 2) << "there are no others";
}

TEST(Sampler, TemperatureOneDrawsByProbability) {
    expect_distribution(frequencies({.temperature = 1}, logits_of(mixed)),
                        {{0, 0.1}, {1, 0.4}, {2, 0.05}, {3, 0.3}, {4, 0.15}});
}

TEST(Sampler, TemperatureSharpens) {
    // p^2 normalized: 1, 16, 0.25, 9, 2.25 of 28.5
    expect_distribution(frequencies({.temperature = 0.5}, logits_of(mixed)),
                        {{0, 1 / 28.5}, {1, 16 / 28.5}, {2, 0.25 / 28.5}, {3, 9 / 28.5}, {4, 2.25 / 28.5}});
}

TEST(Sampler, TopKKeepsTheBest) {
    expect_distribution(frequencies({.temperature = 1, .top_k = 2}, logits_of(mixed)), {{1, 4 / 7.0}, {3, 3 / 7.0}});
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
    // 0.4 + 0.3 = 0.7 is not enough for 0.75; with 0.15 it is.
    expect_distribution(frequencies({.temperature = 1, .top_p = 0.75}, logits_of(mixed)),
                        {{1, 0.4 / 0.85}, {3, 0.3 / 0.85}, {4, 0.15 / 0.85}});
    expect_distribution(frequencies({.temperature = 1, .top_p = 1e-6}, logits_of(mixed)), {{1, 1}});
}

TEST(Sampler, TopPCountsWhatTopKLeft) {
    // Of the best three (0.4, 0.3, 0.15 of 0.85) the first two hold 0.82.
    expect_distribution(frequencies({.temperature = 1, .top_k = 3, .top_p = 0.8}, logits_of(mixed)),
                        {{1, 4 / 7.0}, {3, 3 / 7.0}});
}

TEST(Sampler, MinPIsRelativeToTheBest) {
    // 0.3 of 0.4 is 0.12.
    expect_distribution(frequencies({.temperature = 1, .min_p = 0.3}, logits_of(mixed)),
                        {{1, 0.4 / 0.85}, {3, 0.3 / 0.85}, {4, 0.15 / 0.85}});
}

TEST(Sampler, RepetitionPenaltyMovesScoresTowardsUnlikely) {
    const std::vector<float> logits{2.0F, 1.5F, -1.0F, -1.2F};
    Sampler sampler({.repetition_penalty = 2});
    EXPECT_EQ(sampler.sample(logits, std::vector{0}), 1) << "2 / 2 < 1.5";
    EXPECT_EQ(sampler.sample(logits, std::vector{0, 0, 0}), 1) << "once, however often it came";
    EXPECT_EQ(sampler.sample(std::vector<float>{-1.0F, -1.2F}, std::vector{0}), 1) << "-1 * 2 < -1.2";
    Sampler forgetful({.repetition_penalty = 2, .repetition_window = 2});
    EXPECT_EQ(forgetful.sample(logits, std::vector{0, 2, 2}), 0) << "0 has left the window";
}

TEST(Sampler, SameSeedSameTokens) {
    const auto logits = logits_of(mixed);
    Sampler first({.temperature = 1, .seed = 3}), second({.temperature = 1, .seed = 3}), other({.temperature = 1});
    std::vector<int> a, b, c;
    for (int i = 0; i < 50; ++i) {
        a.push_back(first.sample(logits, {}));
        b.push_back(second.sample(logits, {}));
        c.push_back(other.sample(logits, {}));
    }
    EXPECT_EQ(a, b);
    EXPECT_NE(a, c);
}

TEST(Sampler, RefusesOptionsOutOfRange) {
    EXPECT_THROW(Sampler({.temperature = -1}), core::Error);
    EXPECT_THROW(Sampler({.temperature = NAN}), core::Error);
    EXPECT_THROW(Sampler({.top_k = -1}), core::Error);
    EXPECT_THROW(Sampler({.top_p = 0}), core::Error);
    EXPECT_THROW(Sampler({.top_p = 1.1}), core::Error);
    EXPECT_THROW(Sampler({.min_p = -0.1}), core::Error);
    EXPECT_THROW(Sampler({.repetition_penalty = 0}), core::Error);
    EXPECT_THROW(Sampler({.repetition_window = -1}), core::Error);
}

}  // namespace
}  // namespace mha2mla::runtime
