/// The method transmla through the pipeline, and its layers against the public implementation. Fixture:
/// tools/make_transmla_fixtures.py.
#include <cmath>
#include <filesystem>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <vector>

#include "convert/pipeline.h"
#include "core/error.h"
#include "core/file.h"
#include "model/causal_lm.h"
#include "model/mla_attention.h"

namespace mha2mla::convert {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;

const std::vector<std::vector<int>> some_text{
    {1, 2, 3, 4, 5, 6, 90, 71, 33, 8, 64, 12, 5, 77, 21, 40, 101, 9, 18, 27, 55, 3},
    {70, 60, 50, 40, 30, 20, 10, 5, 99, 17, 41, 11, 2, 64, 88, 31, 14, 25, 6, 36, 48, 7}};

Checkpoint fixture(const std::string& name) { return Checkpoint::open(fs::path(MHA2MLA_FIXTURES) / "models" / name); }

ConversionOptions transmla(int components, int freqfold) {
    ConversionOptions options;
    options.method = "transmla";
    options.transmla.rope_components = components;
    if (freqfold > 0) options.transmla.freqfold = freqfold;
    return options;
}

double relative_difference(const torch::Tensor& got, const torch::Tensor& expected) {
    return ((got - expected).abs().max() / expected.abs().max()).item<double>();
}

torch::Tensor logits(const Checkpoint& model, const std::vector<int>& tokens) {
    const torch::NoGradGuard no_gradients;
    return model::CausalLm(model, model::ModelOptions{})(torch::tensor(tokens, torch::kInt64).unsqueeze(0))[0];
}

class Transmla : public testing::Test {
protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        directory_ = fs::path(testing::TempDir()) / (std::string("mha2mla_transmla_") + test->name());
        fs::remove_all(directory_);
        fs::create_directories(directory_);
        request_.target = directory_ / "converted";
        request_.replace = true;
        request_.dtype = core::DType::f32;
    }
    void TearDown() override { fs::remove_all(directory_); }

    ConversionReport run(const Checkpoint& source, const ConversionOptions& options,
                         const std::vector<std::vector<int>>& windows = some_text) const {
        core::Progress silent;
        return convert(source, make_plan(source.config(), options), {windows, "by hand"}, request_, silent, {});
    }
    Checkpoint converted() const { return Checkpoint::open(request_.target); }

    fs::path directory_;
    ConvertRequest request_;
};

/// Every component of every head rotates by its own frequency, and nothing is cut off.
TEST_F(Transmla, OfFullSizeChangesNoLogit) {
    for (const auto* name : {"tiny-mha", "tiny-gqa", "tiny-gqa-tied", "tiny-llama3", "tiny-bias"}) {
        SCOPED_TRACE(name);
        const auto source = fixture(name);
        auto options = transmla(source.config().num_key_value_heads * source.config().rope_pairs(), 1);
        options.cache_ratio = 1;
        EXPECT_DOUBLE_EQ(run(source, options).plan.cache_ratio(), 1);
        EXPECT_LT(relative_difference(logits(converted(), some_text[0]), logits(source, some_text[0])), 1e-3);
    }
}

TEST_F(Transmla, HoldsThePlannedSizesAndTwoRunsWriteTheSameBytes) {
    const auto source = fixture("tiny-gqa");
    auto options = transmla(2, 8);
    options.cache_ratio = 0.25;
    run(source, options);
    const auto first = core::read_text(request_.target / "model.safetensors");
    EXPECT_EQ(converted().config().cached_elements(0), source.config().cached_elements(0) / 4);
    EXPECT_TRUE(converted().config().mla().q_rope_proj);
    run(source, options);
    EXPECT_TRUE(core::read_text(request_.target / "model.safetensors") == first);
    EXPECT_THAT(core::read_text(request_.target / "README.md"), testing::HasSubstr("FreqFold 8"));
}

double perplexity(const Checkpoint& model, const std::vector<int>& window) {
    const auto targets = torch::tensor(window, torch::kInt64).slice(0, 1);
    return std::exp(torch::cross_entropy_loss(logits(model, window).slice(0, 0, -1), targets).item<double>());
}

/// auto: what the written models predict of the last window, of which their statistics know nothing.
TEST_F(Transmla, ChoosesTheFreqfoldThatReadsHeldOutTextBest) {
    const auto source = fixture("tiny-gqa");
    std::map<double, int> by_perplexity;
    for (const int fold : {2, 4, 8}) {
        run(source, transmla(4, fold), {some_text[0]});
        by_perplexity[perplexity(converted(), some_text[1])] = fold;
    }
    ASSERT_EQ(by_perplexity.size(), 3u) << "the test must see a difference";
    const auto report = run(source, transmla(4, 0));
    EXPECT_EQ(report.plan.options.transmla.freqfold, by_perplexity.begin()->second);
    EXPECT_NEAR(perplexity(converted(), some_text[1]), by_perplexity.begin()->first, 1e-3);
    const auto record = core::parse_json(core::read_text(request_.target / "conversion.json"), "conversion.json");
    EXPECT_EQ(record["plan"]["freqfold"], by_perplexity.begin()->second);
    EXPECT_EQ(record["calibration"]["windows"], 2);
}

TEST_F(Transmla, StatisticsServeTheChoiceAndLaterConversionsAndLsq) {
    const auto source = fixture("tiny-gqa");
    request_.statistics = directory_ / "statistics";
    EXPECT_TRUE(needs_calibration(transmla(4, 2), request_));
    const auto chosen = run(source, transmla(4, 0)).plan.options.transmla.freqfold;
    const auto measured = logits(converted(), some_text[0]);
    EXPECT_FALSE(needs_calibration(transmla(4, 0), request_)) << "what is held out is saved too";
    EXPECT_EQ(run(source, transmla(4, 0), {}).plan.options.transmla.freqfold, chosen);
    run(source, transmla(4, *chosen), {});
    EXPECT_LT(relative_difference(logits(converted(), some_text[0]), measured), 1e-3);
    ConversionOptions lsq;
    lsq.method = "lsq";
    EXPECT_NO_THROW(run(source, lsq, {}));
}

struct Refusal {
    const char* option;  ///< that the message must name
    const char* range;   ///< that it must offer
    std::function<void(ConversionOptions&)> spoil;
};

/// P = 8 pairs, G = 2 heads.
TEST(TransmlaPlan, RefusesNamingOptionAndRange) {
    const auto config = fixture("tiny-gqa").config();
    const std::vector<Refusal> refusals{
        {"--rope-components", "divisor of 8", [](auto& o) { o.transmla.rope_components = 3; }},
        {"--rope-components", "up to 16", [](auto& o) { o.transmla.rope_components = 24; }},
        {"--rope-components", "divisor of 8", [](auto& o) { o.transmla.rope_components = 0; }},
        {"--freqfold", "multiple of 4", [](auto& o) { o.transmla.freqfold = 2; }},
        {"--freqfold", "divisor of 8", [](auto& o) { o.transmla.freqfold = 16; }},
        {"--freqfold", "auto", [](auto& o) { o.transmla.freqfold = -1; }},
        {"--balance-kv", "above 0", [](auto& o) { o.transmla.balance_kv = 0; }},
        {"--balance-kv", "above 0", [](auto& o) { o.transmla.balance_kv = std::nan(""); }},
        {"--cache-ratio", "at most 1", [](auto& o) { o.cache_ratio = 1.5; }},
        {"--cache-ratio", "at most 1", [](auto& o) { o.cache_ratio = std::nan(""); }},
        {"--cache-ratio", "at least", [](auto& o) { o.cache_ratio = 0.05; }},
        {"--kv-rank", "1..30", [](auto& o) { o.kv_rank = 31; }},
        {"--kv-rank", "1..30", [](auto& o) { o.kv_rank = 0; }},
    };
    EXPECT_NO_THROW(make_plan(config, transmla(2, 4)));
    for (const auto& refusal : refusals) {
        auto options = transmla(2, 4);
        refusal.spoil(options);
        try {
            make_plan(config, options);
            ADD_FAILURE() << "accepted: " << refusal.option << " " << refusal.range;
        } catch (const core::Error& error) {
            EXPECT_THAT(error.what(), testing::HasSubstr(refusal.option));
            EXPECT_THAT(error.what(), testing::HasSubstr(refusal.range));
        }
    }
}

/// d = 64, G = 3: the rotary key takes 4 / 9 of the cache at most.
TEST(TransmlaPlan, DividesTheCacheBetweenLatentAndRotaryKey) {
    auto config = fixture("tiny-gqa").config();
    config.head_dim = 64;
    config.num_key_value_heads = config.num_attention_heads = 3;
    for (const auto& [elements, components] : {std::pair{48, 8}, std::pair{72, 16}, std::pair{120, 16},
                                               std::pair{160, 32}, std::pair{192, 32}, std::pair{256, 32}}) {
        ConversionOptions options;
        options.method = "transmla";
        options.cache_ratio = elements / 384.0;
        const auto plan = make_plan(config, options);
        EXPECT_EQ(*plan.options.transmla.rope_components, components) << elements;
        EXPECT_EQ(plan.target.cached_elements(0), elements);
        EXPECT_EQ(plan_to_json(plan)["freqfold"], "auto");
    }
}

torch::Tensor matrix(const core::Json& rows) {
    std::vector<torch::Tensor> tensors;
    for (const auto& row : rows) tensors.push_back(torch::tensor(row.get<std::vector<double>>(), torch::kFloat64));
    return torch::stack(tensors);
}

/// Outputs of the converted first layer, in fp64, on the inputs that calibrated it.
torch::Tensor converted_outputs(const core::Json& test_case, const torch::Tensor& x) {
    const auto source = fixture(test_case["model"].get<std::string>());
    auto options = transmla(test_case["components"].get<int>(), test_case["freqfold"].get<int>());
    options.kv_rank = test_case["rank"].get<int>() / source.config().num_key_value_heads;
    options.transmla.balance_kv = test_case["balance"].get<double>();
    const auto plan = make_plan(source.config(), options);
    calibrate::AttentionMoments moments;
    moments.input_mean = x.mean(0);
    moments.token_covariance = (x - moments.input_mean).t().mm(x - moments.input_mean) / x.size(0);
    const auto attention = load_attention(source, 0, torch::kCPU);
    const auto converted = find_method("transmla").convert({attention, plan, 0, &moments});
    model::ModelOptions precise;
    precise.dtype = torch::kFloat64;
    const model::Weights weights(
        [&](const std::string& name, const checkpoint::Shape&) { return converted.tensors.at(name); }, precise);
    model::MlaAttention module(weights.under("self_attn"), plan.target, 0);
    return module(x.unsqueeze(0))[0];
}

TEST(TransmlaReference, LayersEqualThoseOfThePublicImplementation) {
    const torch::NoGradGuard no_gradients;
    const auto path = fs::path(MHA2MLA_FIXTURES) / "convert" / "transmla.json";
    const auto fixture = core::parse_json(core::read_text(path), path.string());
    const auto positions = torch::tensor(fixture["positions"].get<std::vector<std::int64_t>>());
    for (const auto& test_case : fixture["cases"]) {
        SCOPED_TRACE(test_case["name"].get<std::string>());
        const auto x = matrix(fixture["inputs"][test_case["model"].get<std::string>()]);
        const auto got = converted_outputs(test_case, x).index_select(0, positions);
        EXPECT_LT(relative_difference(got, matrix(test_case["output"])), 1e-5);
    }
}

}  // namespace
}  // namespace mha2mla::convert
