#include "runtime/generate.h"

#include <algorithm>
#include <gtest/gtest.h>

#include "core/error.h"
#include "runtime/oracle.h"

namespace mha2mla::runtime {
namespace {

class Generate : public testing::Test {
protected:
    struct Output {
        std::vector<int> tokens;
        GenerateStats stats;
    };

    Output run(test::Engine& engine, const GenerateOptions& options, const std::vector<int>& prompt) {
        Output output;
        Sequence sequence = engine.decoder.new_sequence();
        output.stats = generate(
            engine.decoder, sequence, prompt, options, [&](int token) { output.tokens.push_back(token); },
            stop_.get_token());
        return output;
    }

    checkpoint::Checkpoint model_ = test::random_model(test::tiny_config(), "generate");
    std::vector<int> prompt_ = test::random_tokens(20, 101);
    std::stop_source stop_;
};

TEST_F(Generate, GreedyFollowsTheBestLogitOfTheOracle) {
    test::Engine engine(model_, test::f32_options());
    const Output output = run(engine, {.max_tokens = 8}, prompt_);
    std::vector<int> text = prompt_;
    for (const int token : output.tokens) {
        const auto logits = test::oracle_logits(model_, text).back();
        EXPECT_EQ(token, std::max_element(logits.begin(), logits.end()) - logits.begin());
        text.push_back(token);
    }
    EXPECT_EQ(output.tokens.size(), 8u);
    EXPECT_EQ(output.stats.finish, FinishReason::length);
    EXPECT_EQ(output.stats.prompt_tokens, 20);
    EXPECT_EQ(output.stats.generated_tokens, 8);
    EXPECT_EQ(output.stats.decode_steps, 7);
}

TEST_F(Generate, StopTokenEndsTheTextAndIsNotPartOfIt) {
    test::Engine engine(model_, test::f32_options());
    const auto all = run(engine, {.max_tokens = 8}, prompt_).tokens;
    const auto first = std::find(all.begin(), all.end(), all[4]);
    const Output output = run(engine, {.max_tokens = 8, .stop_tokens = {all[4]}}, prompt_);
    EXPECT_EQ(output.tokens, std::vector<int>(all.begin(), first));
    EXPECT_EQ(output.stats.finish, FinishReason::stop);
}

TEST_F(Generate, BeforeTheLeastNumberOfTokensNoStopTokenIsChosen) {
    test::Engine engine(model_, test::f32_options());
    const auto all = run(engine, {.max_tokens = 8}, prompt_).tokens;
    const auto late = run(engine, {.max_tokens = 8, .stop_tokens = {all[0]}, .min_tokens = 1}, prompt_);
    ASSERT_FALSE(late.tokens.empty());
    auto logits = test::oracle_logits(model_, prompt_).back();
    logits[static_cast<std::size_t>(all[0])] = -1e30f;
    EXPECT_EQ(late.tokens[0], std::max_element(logits.begin(), logits.end()) - logits.begin()) << "the second best";
    EXPECT_TRUE(run(engine, {.max_tokens = 8, .stop_tokens = {all[0]}}, prompt_).tokens.empty());
}

TEST_F(Generate, EndsWhereTheContextIsFull) {
    test::Engine engine(model_, {.context_tokens = 64});
    const Output output = run(engine, {.max_tokens = 100}, prompt_);
    EXPECT_EQ(output.stats.finish, FinishReason::context);
    EXPECT_EQ(output.tokens.size(), 45u) << "44 fit after the prompt; the last one is never fed";
}

TEST_F(Generate, StopRequestCancels) {
    test::Engine engine(model_, test::f32_options());
    Sequence sequence = engine.decoder.new_sequence();
    int emitted = 0;
    const auto stats = generate(
        engine.decoder, sequence, prompt_, {.max_tokens = 50},
        [&](int) {
            if (++emitted == 3) stop_.request_stop();
        },
        stop_.get_token());
    EXPECT_EQ(stats.finish, FinishReason::cancelled);
    EXPECT_EQ(emitted, 3);
    EXPECT_EQ(run(engine, {}, prompt_).stats.prompt_tokens, 0) << "stopped before the prefill";
}

TEST_F(Generate, SamplingIsRepeatable) {
    test::Engine engine(model_, test::f32_options());
    const GenerateOptions options{.sampling = {.temperature = 1, .seed = 9}, .max_tokens = 30};
    const auto tokens = run(engine, options, prompt_).tokens;
    EXPECT_EQ(run(engine, options, prompt_).tokens, tokens);
    EXPECT_NE(run(engine, {.sampling = {.temperature = 1, .seed = 8}, .max_tokens = 30}, prompt_).tokens, tokens);
}

TEST_F(Generate, RefusesEmptyAndTooLongPrompts) {
    test::Engine engine(model_, {.context_tokens = 64});
    EXPECT_THROW(run(engine, {}, {}), core::Error);
    EXPECT_THROW(run(engine, {}, test::random_tokens(65, 101)), core::Error);
}

}  // namespace
}  // namespace mha2mla::runtime
