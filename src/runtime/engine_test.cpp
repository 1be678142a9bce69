#include "runtime/engine.h"

#include <gtest/gtest.h>
#include <map>

#include "core/error.h"
#include "runtime/oracle.h"

namespace mha2mla::runtime {
namespace {

using test::MlaChoice;

struct Outcome {
    std::vector<int> tokens;
    FinishReason finish;
    int reused_tokens;
};

/// Several requests in one engine against each of them alone with generate().
class EngineOfMany : public testing::TestWithParam<checkpoint::ModelConfig> {
protected:
    static DecoderOptions options(int sequences) {
        auto options = test::f32_options();
        options.context_tokens = 256;
        options.sequences = sequences;
        return options;
    }

    static std::map<RequestId, Outcome> run(Engine& engine) {
        std::map<RequestId, Outcome> outcomes;
        while (engine.step([&](const EngineResult& result) {
            outcomes[result.id] = {
                {result.generated.begin(), result.generated.end()}, result.finish, result.reused_tokens};
        })) {
        }
        return outcomes;
    }

    Outcome alone(const EngineRequest& request) const {
        test::Engine one(model_, options(1));
        Outcome outcome{};
        Sequence sequence = one.decoder.new_sequence();
        outcome.finish = generate(one.decoder, sequence, request.prompt, request.options,
                                  [&](int token) { outcome.tokens.push_back(token); }, {})
                             .finish;
        return outcome;
    }

    void expect_as_alone(const std::vector<EngineRequest>& requests, std::map<RequestId, Outcome> seen) const {
        ASSERT_EQ(seen.size(), requests.size());
        for (std::size_t i = 0; i < requests.size(); ++i) {
            const Outcome expected = alone(requests[i]);
            const Outcome& outcome = seen[static_cast<RequestId>(i)];
            EXPECT_EQ(outcome.tokens, expected.tokens) << "request " << i;
            EXPECT_EQ(outcome.finish, expected.finish) << "request " << i;
        }
    }

    static EngineRequest request(int prompt, int generated, std::uint64_t seed) {
        return {
            .prompt = test::random_tokens(prompt, 101, seed),
            .options = {.sampling = {.temperature = seed % 2 == 0 ? 0.0 : 0.7, .seed = seed}, .max_tokens = generated}};
    }

    checkpoint::Checkpoint model_ = test::random_model(GetParam(), "engine");
};

TEST_P(EngineOfMany, EachGetsTheTextThatItGetsAlone) {
    std::vector<EngineRequest> requests;
    for (const auto& [prompt, generated] : std::vector<std::pair<int, int>>{
             {1, 30}, {70, 1}, {200, 80}, {64, 20}, {15, 0}, {128, 10}, {256, 4}, {30, 70}, {5, 5}}) {
        requests.push_back(request(prompt, generated, requests.size()));
    }
    requests[3].options.stop_tokens = {alone(requests[3]).tokens[7]};
    requests[6].options.stop_tokens = {alone(requests[6]).tokens[0]};
    requests[6].options.min_tokens = 1;
    test::Engine base(model_, options(4), 3);
    Engine engine(base.decoder, base.pool, 4);
    for (const auto& one : requests) engine.submit(one);
    expect_as_alone(requests, run(engine));
    EXPECT_EQ(engine.stats().preemptions, 0);
    EXPECT_FALSE(engine.step([](const EngineResult&) {}));
}

TEST_P(EngineOfMany, ThePreemptedGetTheSameText) {
    std::vector<EngineRequest> requests;
    for (std::uint64_t seed = 0; seed < 6; ++seed) requests.push_back(request(60, 130, seed));
    test::Engine base(model_, options(2), 2);
    Engine engine(base.decoder, base.pool, 6);  // three times what the cache holds
    for (const auto& one : requests) engine.submit(one);
    expect_as_alone(requests, run(engine));
    EXPECT_GT(engine.stats().preemptions, 0);
}

TEST_P(EngineOfMany, PagesOfEarlierRequestsAreReusedAndChangeNothing) {
    std::vector<EngineRequest> requests{request(200, 20, 2)};
    for (const std::size_t shared : {150u, 200u, 63u}) {
        requests.push_back(requests[0]);
        auto& prompt = requests.back().prompt;
        prompt.resize(shared);
        const auto rest = test::random_tokens(20, 101, 50 + shared);
        prompt.insert(prompt.end(), rest.begin(), rest.end());
    }
    test::Engine base(model_, options(4));
    Engine engine(base.decoder, base.pool, 2);
    engine.submit(requests[0]);
    auto seen = run(engine);
    for (std::size_t i = 1; i < requests.size(); ++i) engine.submit(requests[i]);
    seen.merge(run(engine));
    expect_as_alone(requests, seen);
    EXPECT_EQ(seen[1].reused_tokens, 128);
    EXPECT_EQ(seen[2].reused_tokens, 192);
    EXPECT_EQ(seen[3].reused_tokens, 0);
    EXPECT_EQ(engine.stats().reused_tokens, 128 + 192);
    EXPECT_EQ(engine.stats().prompt_tokens, 200 + 42 + 28 + 83);
}

TEST_P(EngineOfMany, KeptPagesGiveWayToRequests) {
    test::Engine base(model_, options(1));
    Engine engine(base.decoder, base.pool, 1);
    std::vector<EngineRequest> requests;
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        requests.push_back(request(150, 40, seed));
        engine.submit(requests.back());
    }
    expect_as_alone(requests, run(engine));
    EXPECT_LE(base.decoder.kv_bytes().allocated, base.decoder.kv_bytes().capacity + 10'000) << "sinks come on top";
}

INSTANTIATE_TEST_SUITE_P(Models, EngineOfMany,
                         testing::Values(test::tiny_config(), test::tiny_mla_config({.name = "latent"}),
                                         test::tiny_mla_config({.name = "sinks",
                                                                .factors = true,
                                                                .positional_part = true,
                                                                .sink_tokens = 4})),
                         [](const auto& param_info) { return "model_" + std::to_string(param_info.index); });

TEST(Engine, RefusesPromptsThatCannotRun) {
    const auto model = test::random_model(test::tiny_config(), "engine-errors");
    test::Engine base(model, {.context_tokens = 64});
    Engine engine(base.decoder, base.pool, 2);
    EXPECT_THROW(engine.submit({}), core::Error);
    EXPECT_THROW(engine.submit({.prompt = test::random_tokens(65, 101)}), core::Error);
    EXPECT_THROW(engine.submit({.prompt = {1, 101}}), core::Error);
    EXPECT_THROW(engine.submit({.prompt = {1}, .options = {.sampling = {.temperature = -1}}}), core::Error);
    EXPECT_FALSE(engine.step([](const EngineResult&) {})) << "nothing was taken in";
}

}  // namespace
}  // namespace mha2mla::runtime
