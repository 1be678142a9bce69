#include "convert/pipeline.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iterator>
#include <string>

#include "calibrate/pair_norms.h"
#include "checkpoint/test_support.h"
#include "convert/select.h"
#include "core/error.h"
#include "core/file.h"
#include "model/causal_lm.h"

namespace mha2mla::convert {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;

/// Stops the conversion after some layers.
class StopAfter : public core::Progress {
public:
    StopAfter(int layers, std::stop_source& stop) : layers_(layers), stop_(stop) {}
    void update(std::int64_t done, const std::string&) override {
        if (done >= layers_) stop_.request_stop();
    }

private:
    int layers_;
    std::stop_source& stop_;
};

class Pipeline : public testing::Test {
protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        directory_ = fs::path(testing::TempDir()) / (std::string("mha2mla_convert_") + test->name());
        fs::remove_all(directory_);
        fs::create_directories(directory_);
    }
    void TearDown() override { fs::remove_all(directory_); }

    static Checkpoint fixture(const std::string& name) {
        return Checkpoint::open(fs::path(MHA2MLA_FIXTURES) / "models" / name);
    }
    /// Random weights in the shape of tiny-gqa, but with wide heads.
    Checkpoint wide_headed(int head_dim) const {
        auto config = fixture("tiny-gqa").config();
        config.head_dim = head_dim;
        checkpoint::test::write_random_model(config, directory_ / "wide");
        return Checkpoint::open(directory_ / "wide");
    }
    fs::path target() const { return directory_ / "converted"; }

    ConvertRequest request() const {
        ConvertRequest request;
        request.target = target();
        request.replace = true;
        request.dtype = core::DType::f32;
        request.command = "mha2mla convert a b";
        request.version = "1.2.3";
        return request;
    }
    ConversionReport run(const Checkpoint& source, const ConversionOptions& options,
                         const data::TextWindows& calibration = {}) const {
        core::Progress silent;
        return convert(source, make_plan(source.config(), options), calibration, request(), silent, {});
    }
    /// Logits of the converted model.
    torch::Tensor converted_logits(const Checkpoint& source, const ConversionOptions& options) const {
        run(source, options);
        return logits(Checkpoint::open(target()));
    }
    static torch::Tensor logits(const Checkpoint& source) {
        model::CausalLm model(source, model::ModelOptions{});
        return logits(model);
    }
    static torch::Tensor logits(model::CausalLm& model) {
        const torch::NoGradGuard no_gradients;
        torch::manual_seed(7);
        return model(torch::randint(0, 128, {1, 40}, torch::kInt64));
    }
    std::vector<std::string> left_behind() const {
        std::vector<std::string> names;
        for (const auto& entry : fs::directory_iterator(directory_)) names.push_back(entry.path().filename().string());
        return names;
    }

    fs::path directory_;
};

double relative_difference(const torch::Tensor& got, const torch::Tensor& expected) {
    return ((got - expected).abs().max() / expected.abs().max()).item<double>();
}

ConversionOptions exact(int rope_pairs, Selection selection = Selection::uniform) {
    ConversionOptions options;
    options.factorization = Factorization::none;
    options.selection = selection;
    options.rope_pairs = rope_pairs;
    return options;
}

/// The source model with the rotation of all but `kept` pairs stopped: partial RoPE without any conversion.
torch::Tensor partial_rope_logits(const Checkpoint& source, const std::vector<int>& kept) {
    const torch::NoGradGuard no_gradients;
    model::CausalLm model(source, model::ModelOptions{});
    for (auto& buffer : model->named_buffers()) {
        const auto mask = torch::zeros_like(buffer.value());
        for (const int pair : kept) mask.select(1, pair).fill_(1);
        buffer.value().mul_(mask);
    }
    torch::manual_seed(7);
    return model(torch::randint(0, 128, {1, 40}, torch::kInt64));
}

TEST_F(Pipeline, AllPairsKeptAndNothingFactoredChangesNoLogit) {
    for (const auto* name : {"tiny-mha", "tiny-gqa", "tiny-gqa-tied", "tiny-llama3", "tiny-bias"}) {
        SCOPED_TRACE(name);
        const auto source = fixture(name);
        EXPECT_LT(relative_difference(converted_logits(source, exact(source.config().rope_pairs())), logits(source)),
                  1e-4);
    }
}

TEST_F(Pipeline, PartialRopeIsTheSourceWithSomeRotationsStopped) {
    for (const auto* name : {"tiny-mha", "tiny-gqa", "tiny-llama3", "tiny-bias"}) {
        for (const auto selection : {Selection::high, Selection::low, Selection::uniform}) {
            SCOPED_TRACE(std::string(name) + " " + std::string(name_of(selection)));
            const auto source = fixture(name);
            const auto kept = select_by_rule(selection, source.config().rope_pairs(), 2);
            const auto expected = partial_rope_logits(source, kept);
            EXPECT_LT(relative_difference(converted_logits(source, exact(2, selection)), expected), 1e-4);
            EXPECT_GT(relative_difference(logits(source), expected), 1e-3) << "the test must see a difference";
        }
    }
}

TEST_F(Pipeline, FullRankFactorsEqualNone) {
    for (const auto* name : {"tiny-mha", "tiny-gqa", "tiny-bias"}) {
        for (const auto factorization : {Factorization::joint_svd, Factorization::split_svd}) {
            SCOPED_TRACE(std::string(name) + " " + std::string(name_of(factorization)));
            const auto source = fixture(name);
            const auto& config = source.config();
            const auto expected = converted_logits(source, exact(2));
            auto options = exact(2);
            options.factorization = factorization;
            const int rows = config.num_key_value_heads * (2 * config.head_dim - 4);
            // The stack has rank min(E, rows); apart, keys and values have min(E, their rows) each.
            const int both = config.num_key_value_heads * config.head_dim;
            const int full = factorization == Factorization::joint_svd
                                 ? std::min(config.hidden_size, rows)
                                 : std::min(config.hidden_size, both - 4 * config.num_key_value_heads) +
                                       std::min(config.hidden_size, both);
            options.kv_rank = full / config.num_key_value_heads;
            EXPECT_LT(relative_difference(converted_logits(source, options), expected), 1e-3);
        }
    }
}

TEST_F(Pipeline, LatentGroupsEqualNoneAtFullRank) {
    for (const auto* name : {"tiny-gqa", "tiny-mha", "tiny-bias"}) {
        const auto source = fixture(name);
        const auto& config = source.config();
        const auto expected = converted_logits(source, exact(2));
        for (const auto factorization : {Factorization::none, Factorization::joint_svd, Factorization::split_svd}) {
            SCOPED_TRACE(std::string(name) + " " + std::string(name_of(factorization)));
            auto options = exact(2);
            options.latent_groups = 2;  // of one or of two heads
            options.factorization = factorization;
            const int heads = config.num_key_value_heads / 2;
            const int key_rows = heads * (config.head_dim - 4), value_rows = heads * config.head_dim;
            const int full = factorization == Factorization::joint_svd
                                 ? std::min(config.hidden_size, key_rows + value_rows)
                                 : std::min(config.hidden_size, key_rows) + std::min(config.hidden_size, value_rows);
            if (factorization != Factorization::none) options.kv_rank = full / heads;
            EXPECT_LT(relative_difference(converted_logits(source, options), expected), 1e-3);
            model::ModelOptions in_latents;
            in_latents.attention = model::AttentionForm::absorbed;
            model::CausalLm absorbed(Checkpoint::open(target()), in_latents);
            EXPECT_LT(relative_difference(logits(absorbed), expected), 1e-3);
        }
    }
}

TEST_F(Pipeline, LatentGroupsLoseMoreThanOneLatentOfTheirWidth) {
    const auto source = fixture("tiny-gqa");
    auto small = exact(2);
    small.factorization = Factorization::joint_svd;
    small.kv_rank = 6;
    const auto together = run(source, small).layers[0];
    small.latent_groups = 2;
    const auto apart = run(source, small).layers[0];
    EXPECT_LT(apart.key_energy + apart.value_energy, together.key_energy + together.value_energy);
    EXPECT_GT(apart.key_energy + apart.value_energy, 0.2);
}

TEST_F(Pipeline, ASmallLatentLosesSomething) {
    const auto source = fixture("tiny-gqa");
    auto options = exact(2);
    const auto expected = converted_logits(source, options);
    options.factorization = Factorization::joint_svd;
    options.kv_rank = 3;
    const auto report = run(source, options);
    EXPECT_GT(relative_difference(logits(Checkpoint::open(target())), expected), 1e-2);
    ASSERT_EQ(report.layers.size(), 2u);
    EXPECT_GT(report.layers[0].key_energy, 0.05);
    EXPECT_LT(report.layers[0].value_energy, 0.95);
}

TEST_F(Pipeline, SplitAndJointCacheTheSame) {
    const auto source = fixture("tiny-gqa");
    ConversionOptions options;
    const auto joint = run(source, options).plan.cache_ratio();
    options.factorization = Factorization::split_svd;
    EXPECT_DOUBLE_EQ(run(source, options).plan.cache_ratio(), joint);
    EXPECT_DOUBLE_EQ(Checkpoint::open(target()).config().cached_elements(0) / 64.0, joint);
    options.split_full_rank = true;
    EXPECT_GT(run(source, options).plan.cache_ratio(), joint);
}

TEST_F(Pipeline, AbsorbedAndExpandedAgreeOnAConvertedModel) {
    run(fixture("tiny-gqa"), {});
    const auto converted = Checkpoint::open(target());
    model::ModelOptions options;
    options.attention = model::AttentionForm::absorbed;
    model::CausalLm absorbed(converted, options);
    EXPECT_LT(relative_difference(logits(absorbed), logits(converted)), 1e-5);
}

TEST_F(Pipeline, TwoNormKeepsThePairsOfItsStatistics) {
    const auto source = fixture("tiny-gqa");
    const data::TextWindows calibration{{{1, 2, 3, 4, 5, 6}, {70, 60, 50, 40}}, "two windows"};
    ConversionOptions options;
    options.selection = Selection::two_norm;
    options.rope_pairs = 3;
    const auto report = run(source, options, calibration);

    calibrate::LayerWalk walk(source, calibration.windows, model::ModelOptions{});
    const auto converted = Checkpoint::open(target());
    for (std::size_t layer = 0; layer < 2; ++layer) {
        const auto expected = keep_best(two_norm_ranks(calibrate::measure_pair_norms(walk, {})), 3);
        EXPECT_EQ(report.plan.target.mla().rope_pairs[layer], expected);
        EXPECT_EQ(converted.config().mla().rope_pairs[layer], expected);
    }
}

TEST_F(Pipeline, TwoNormWithoutTokensIsRefused) {
    ConversionOptions options;
    options.selection = Selection::two_norm;
    EXPECT_TRUE(needs_calibration(options, {}));
    EXPECT_FALSE(needs_calibration({}, {}));
    EXPECT_THROW(run(fixture("tiny-gqa"), options), core::Error);
    EXPECT_THAT(left_behind(), testing::IsEmpty());
}

const data::TextWindows some_text{{{1, 2, 3, 4, 5, 6, 90, 71, 33, 8, 64, 12, 5, 77, 21, 40, 101, 9, 18, 27, 55, 3},
                                   {70, 60, 50, 40, 30, 20, 10, 5, 99, 17, 41, 11, 2, 64, 88, 31, 14, 25, 6, 36, 48}},
                                  "two windows"};

ConversionOptions lsq() {
    ConversionOptions options;
    options.method = "lsq";
    return options;
}

/// Every rotary component and the full rank: nothing is lost, whatever else is switched on or off.
TEST_F(Pipeline, LsqOfFullSizeChangesNoLogit) {
    for (const auto* name : {"tiny-mha", "tiny-gqa", "tiny-gqa-tied", "tiny-llama3", "tiny-bias"}) {
        const auto source = fixture(name);
        const auto& config = source.config();
        for (const bool exact_parts : {true, false}) {
            SCOPED_TRACE(std::string(name) + (exact_parts ? ", exact parts" : ""));
            auto options = lsq();
            options.lsq.rope_components = config.num_key_value_heads * config.rope_pairs();
            options.cache_ratio = 2;
            options.lsq.mean_key = exact_parts;
            options.lsq.sinks = exact_parts ? 4 : 0;
            run(source, options, some_text);
            EXPECT_LT(relative_difference(logits(Checkpoint::open(target())), logits(source)), 1e-3);
        }
    }
}

TEST_F(Pipeline, HeadsOf128) {
    const auto source = wide_headed(128);
    auto options = lsq();
    options.lsq.rope_components = 128;
    options.cache_ratio = 2;
    run(source, options, some_text);
    EXPECT_LT(relative_difference(logits(Checkpoint::open(target())), logits(source)), 1e-3);
    for (const auto* method : {"lsq", "transmla", "mha2mla"}) {
        ConversionOptions smaller;
        smaller.method = method;
        smaller.cache_ratio = 0.125;
        run(source, smaller, some_text);
        const auto converted = Checkpoint::open(target());
        EXPECT_LE(converted.config().cached_elements(0) + converted.config().cached_elements(1), 2 * 512 / 8) << method;
        EXPECT_TRUE(torch::isfinite(logits(converted)).all().item<bool>()) << method;
    }
}

TEST_F(Pipeline, LsqHoldsThePlannedSizesAndTwoRunsWriteTheSameBytes) {
    const auto source = fixture("tiny-gqa");
    auto options = lsq();
    options.cache_ratio = 0.25;
    options.lsq.by_layer = false;
    run(source, options, some_text);
    const auto first = core::read_text(target() / "model.safetensors");
    const auto converted = Checkpoint::open(target());
    EXPECT_EQ(converted.config().cached_elements(0), source.config().cached_elements(0) / 4);
    EXPECT_EQ(converted.config().mla().sink_tokens, 4);
    run(source, options, some_text);
    EXPECT_TRUE(core::read_text(target() / "model.safetensors") == first);
}

/// With biases, exact tokens, a positional part, several rotary key heads, latent groups, a fitted output, or none of
/// them.
TEST_F(Pipeline, RotatedLatentsChangeNoLogit) {
    auto lsq_refit = lsq();
    lsq_refit.lsq.refit_output = true;
    auto deepseek = lsq();
    deepseek.lsq.deepseek_shape = true;
    ConversionOptions transmla;
    transmla.method = "transmla";
    transmla.transmla.rope_components = 2;
    ConversionOptions grouped;
    grouped.latent_groups = 2;
    for (auto options : {ConversionOptions{}, grouped, lsq(), lsq_refit, deepseek, transmla}) {
        for (const auto* name : {"tiny-gqa", "tiny-mha", "tiny-bias"}) {
            if (options.lsq.deepseek_shape && name == std::string("tiny-bias")) continue;
            SCOPED_TRACE(options.method + " " + name);
            options.cache_ratio = 0.5;
            options.latent_rotation.reset();
            run(fixture(name), options, some_text);
            const auto expected = logits(Checkpoint::open(target()));
            const auto before = core::read_text(target() / "model.safetensors");
            options.latent_rotation = 3;
            run(fixture(name), options, some_text);
            EXPECT_LT(relative_difference(logits(Checkpoint::open(target())), expected), 1e-4);
            const auto rotated = core::read_text(target() / "model.safetensors");
            EXPECT_FALSE(rotated == before);
            run(fixture(name), options, some_text);
            EXPECT_TRUE(core::read_text(target() / "model.safetensors") == rotated);
        }
    }
    const auto record = core::parse_json(core::read_text(target() / "conversion.json"), "conversion.json");
    EXPECT_EQ(record["plan"]["latent_rotation"]["seed"], 3);
}

double perplexity(const Checkpoint& model, const std::vector<int>& window) {
    model::CausalLm lm(model, model::ModelOptions{});
    const auto tokens = torch::tensor(window, torch::kInt64);
    const auto logits = lm(tokens.unsqueeze(0))[0].slice(0, 0, -1);
    return std::exp(torch::cross_entropy_loss(logits, tokens.slice(0, 1)).item<double>());
}

/// What the written models predict of the window that is held out.
TEST_F(Pipeline, LsqSharesTheCacheByLayerWhereHeldOutTextGains) {
    for (const auto* name : {"tiny-gqa", "tiny-mha", "tiny-bias"}) {
        SCOPED_TRACE(name);
        const auto source = fixture(name);
        auto options = lsq();
        options.cache_ratio = 0.5;
        options.lsq.by_layer = false;
        run(source, options, some_text);
        const double equal = perplexity(Checkpoint::open(target()), some_text.windows[1]);
        options.lsq.by_layer = true;
        const auto report = run(source, options, some_text);
        const auto converted = Checkpoint::open(target());
        EXPECT_LE(perplexity(converted, some_text.windows[1]), equal * (1 + 1e-3));
        const auto& trial = *report.trial;
        const auto chosen = std::find_if(trial.alternatives.begin(), trial.alternatives.end(),
                                         [](const auto& result) { return result.chosen; });
        ASSERT_NE(chosen, trial.alternatives.end());
        EXPECT_NEAR(chosen->perplexity, perplexity(converted, some_text.windows[1]), 0.02 * chosen->perplexity);
        EXPECT_NEAR(trial.source, perplexity(source, some_text.windows[1]), 0.02 * trial.source);
        int elements = 0;
        for (int layer = 0; layer < source.config().num_hidden_layers; ++layer) {
            elements += converted.config().cached_elements(layer);
        }
        EXPECT_LE(elements, source.config().num_hidden_layers * source.config().cached_elements(0) / 2);
    }
}

/// Without biases the latent holds the means of keys and values too.
TEST_F(Pipeline, DeepseekShapeHasNoBiasAndSaysWhatItCosts) {
    const auto source = fixture("tiny-gqa");
    auto options = lsq();
    options.lsq.deepseek_shape = true;
    options.cache_ratio = 2;
    for (const auto& layer : run(source, options, some_text).layers) EXPECT_NEAR(layer.value_energy, 1, 1e-6);
    options.cache_ratio = 0.5;
    const auto report = run(source, options, some_text);
    const auto converted = Checkpoint::open(target());
    EXPECT_FALSE(converted.config().attention_bias);
    EXPECT_TRUE(logits(converted).isfinite().all().item<bool>());
    const auto& pairs = converted.config().mla().rope_pairs;
    EXPECT_TRUE(std::all_of(pairs.begin(), pairs.end(), [&](const auto& layer) { return layer == pairs[0]; }));
    ASSERT_TRUE(report.trial.has_value());
    ASSERT_EQ(report.trial->alternatives.size(), 4u) << "three lists of pairs, and what the restriction costs";
    const auto& free = report.trial->alternatives.back();
    EXPECT_EQ(free.name, "free pairs and sizes");
    EXPECT_FALSE(free.chosen);
}

/// Where nothing is lost there is nothing to make up for; where something is, the text of the fit gains.
TEST_F(Pipeline, RefitKeepsWhatIsExactAndGainsOnItsText) {
    const auto source = fixture("tiny-gqa");
    auto options = lsq();
    options.lsq.by_layer = false;
    options.lsq.rope_components = 0;
    options.cache_ratio = 0.25;
    const std::vector<int>& window = some_text.windows[0];
    const auto lost = [&] {
        const auto tokens = torch::tensor(window, torch::kInt64).unsqueeze(0);
        model::CausalLm ours(Checkpoint::open(target()), model::ModelOptions{});
        model::CausalLm theirs(source, model::ModelOptions{});
        return (ours(tokens) - theirs(tokens)).slice(1, 4).square().sum().item<double>();
    };
    run(source, options, some_text);
    const double before = lost();
    options.lsq.refit_output = true;
    run(source, options, some_text);
    EXPECT_LT(lost(), before);
    options.lsq.rope_components = source.config().num_key_value_heads * source.config().rope_pairs();
    options.cache_ratio = 2;
    run(source, options, some_text);
    EXPECT_LT(relative_difference(logits(Checkpoint::open(target())), logits(source)), 2e-2);
}

TEST_F(Pipeline, SavedStatisticsStandForTheText) {
    const auto source = fixture("tiny-gqa");
    auto asked = request();
    asked.statistics = directory_ / "statistics";
    core::Progress silent;
    const auto plan = make_plan(source.config(), lsq());
    EXPECT_TRUE(needs_calibration(lsq(), asked));
    convert(source, plan, some_text, asked, silent, {});
    const auto measured = logits(Checkpoint::open(target()));
    EXPECT_FALSE(needs_calibration(lsq(), asked));
    convert(source, plan, {}, asked, silent, {});
    EXPECT_LT(relative_difference(logits(Checkpoint::open(target())), measured), 1e-3);
    const auto record = core::parse_json(core::read_text(target() / "conversion.json"), "conversion.json");
    EXPECT_EQ(record["calibration"]["origin"], "two windows");
}

TEST_F(Pipeline, WritesEveryDocument) {
    const auto source = fixture("tiny-text");
    run(source, {});
    const auto record = core::parse_json(core::read_text(target() / "conversion.json"), "conversion.json");
    EXPECT_EQ(record["command"], "mha2mla convert a b");
    EXPECT_EQ(record["version"], "1.2.3");
    EXPECT_EQ(record["plan"]["select"], "uniform");
    EXPECT_EQ(record["fidelity"].size(), static_cast<std::size_t>(source.config().num_hidden_layers));
    EXPECT_TRUE(record["calibration"].is_null());
    EXPECT_THAT(core::read_text(target() / "README.md"), testing::StartsWith("---\nbase_model: \"tiny-text\"\n"));
    for (const auto& [name, contents] : source.tokenizer_files()) {
        EXPECT_EQ(core::read_text(target() / name), contents) << name;
    }
    EXPECT_TRUE(fs::exists(target() / "generation_config.json"));
}

TEST_F(Pipeline, RecordsTheCalibration) {
    ConversionOptions options;
    options.selection = Selection::two_norm;
    run(fixture("tiny-gqa"), options, {{{1, 2, 3}, {4, 5}}, "by hand"});
    const auto record = core::parse_json(core::read_text(target() / "conversion.json"), "conversion.json");
    EXPECT_EQ(record["calibration"]["origin"], "by hand");
    EXPECT_EQ(record["calibration"]["tokens"], 5);
    EXPECT_EQ(record["calibration"]["windows"], 2);
    EXPECT_EQ(record["calibration"]["fingerprint"].get<std::string>().size(), 16u);
}

TEST_F(Pipeline, TwoRunsWriteTheSameBytes) {
    const auto source = fixture("tiny-gqa");
    run(source, {});
    const auto first = core::read_text(target() / "model.safetensors");
    run(source, {});
    EXPECT_TRUE(core::read_text(target() / "model.safetensors") == first);
}

TEST_F(Pipeline, AnInterruptedRunLeavesNothing) {
    const auto source = fixture("tiny-gqa");
    std::stop_source stop;
    StopAfter progress(1, stop);
    const auto plan = make_plan(source.config(), {});
    EXPECT_THROW(convert(source, plan, {}, request(), progress, stop.get_token()), core::Cancelled);
    EXPECT_THAT(left_behind(), testing::IsEmpty());
}

TEST_F(Pipeline, AnInterruptedRunLeavesTheOldTarget) {
    const auto source = fixture("tiny-gqa");
    run(source, {});
    const auto before = core::read_text(target() / "conversion.json");
    std::stop_source stop;
    StopAfter progress(1, stop);
    auto options = exact(1);
    EXPECT_THROW(convert(source, make_plan(source.config(), options), {}, request(), progress, stop.get_token()),
                 core::Cancelled);
    EXPECT_EQ(core::read_text(target() / "conversion.json"), before);
    EXPECT_THAT(left_behind(), testing::ElementsAre("converted"));
}

TEST_F(Pipeline, RefusesADeviceThatIsNotThere) {
    const auto source = fixture("tiny-gqa");
    auto asked = request();
    asked.device = "cuda:999";
    core::Progress silent;
    EXPECT_THROW(convert(source, make_plan(source.config(), {}), {}, asked, silent, {}), core::Error);
    EXPECT_THAT(left_behind(), testing::IsEmpty());
}

TEST_F(Pipeline, ConvertsAConvertedModelNoFurther) {
    run(fixture("tiny-gqa"), {});
    EXPECT_THROW(make_plan(Checkpoint::open(target()).config(), {}), core::Error);
}

}  // namespace
}  // namespace mha2mla::convert
