#include "model/causal_lm.h"

#include <algorithm>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>
#include <string>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"

namespace mha2mla::model {
namespace {

namespace fs = std::filesystem;

const fs::path models = fs::path(MHA2MLA_FIXTURES) / "models";

/// Tokens and the logits that transformers computed for them in fp32 (tools/make_tiny_models.py).
struct Expected {
    torch::Tensor tokens_BT;
    torch::Tensor positions;
    torch::Tensor logits_PV;
};

Expected read_expected(const fs::path& model) {
    const auto path = model / "expected.json";
    const auto json = core::parse_json(core::read_text(path), path.string());
    const auto rows = json["logits"].get<std::vector<std::vector<float>>>();
    std::vector<torch::Tensor> logits;
    for (const auto& row : rows) logits.push_back(torch::tensor(row));
    return {torch::tensor(json["tokens"].get<std::vector<std::int64_t>>()).unsqueeze(0),
            torch::tensor(json["positions"].get<std::vector<std::int64_t>>()), torch::stack(logits)};
}

double relative_difference(const torch::Tensor& got, const torch::Tensor& expected) {
    return ((got - expected).abs().max() / expected.abs().max()).item<double>();
}

class TinyModel : public testing::TestWithParam<const char*> {};

TEST_P(TinyModel, LogitsEqualTransformers) {
    const auto expected = read_expected(models / GetParam());
    const auto source = checkpoint::Checkpoint::open(models / GetParam());
    const torch::NoGradGuard no_gradients;
    CausalLm model(source, ModelOptions{});
    const auto logits = model(expected.tokens_BT)[0].index_select(0, expected.positions);
    ASSERT_EQ(logits.sizes(), expected.logits_PV.sizes());
    EXPECT_LT(relative_difference(logits, expected.logits_PV), 1e-4);
}

TEST_P(TinyModel, Bf16StaysClose) {
    const auto expected = read_expected(models / GetParam());
    const auto source = checkpoint::Checkpoint::open(models / GetParam());
    const torch::NoGradGuard no_gradients;
    ModelOptions options;
    options.dtype = torch::kBFloat16;
    CausalLm model(source, options);
    const auto logits = model(expected.tokens_BT);
    EXPECT_EQ(logits.scalar_type(), torch::kBFloat16);
    const auto chosen = logits[0].index_select(0, expected.positions).to(torch::kFloat32);
    EXPECT_LT(relative_difference(chosen, expected.logits_PV), 5e-2);
}

TEST_P(TinyModel, ParametersAreTheTensorsOfTheCheckpoint) {
    const auto source = checkpoint::Checkpoint::open(models / GetParam());
    CausalLm model(source, ModelOptions{});
    std::set<std::string> expected;
    for (const auto& spec : checkpoint::expected_tensors(source.config())) expected.insert(spec.name);
    std::set<std::string> got;
    for (const auto& parameter : model->named_parameters()) got.insert(parameter.key());
    EXPECT_EQ(got, expected);
}

TEST_P(TinyModel, EveryParameterReceivesAGradient) {
    const auto source = checkpoint::Checkpoint::open(models / GetParam());
    CausalLm model(source, ModelOptions{});
    const auto tokens = torch::tensor({3, 1, 4, 1, 5, 9, 2, 6}, torch::kInt64).unsqueeze(0);
    model(tokens).square().mean().backward();
    for (const auto& parameter : model->named_parameters()) {
        ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
        EXPECT_TRUE(torch::isfinite(parameter.value().grad()).all().item<bool>()) << parameter.key();
    }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TinyModel,
                         testing::Values("tiny-mha", "tiny-gqa", "tiny-gqa-tied", "tiny-llama3", "tiny-bias"),
                         [](const auto& test) {
                             std::string name = test.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

TEST(CausalLm, ALaterTokenChangesNoEarlierLogit) {
    const auto source = checkpoint::Checkpoint::open(models / "tiny-gqa");
    const torch::NoGradGuard no_gradients;
    CausalLm model(source, ModelOptions{});
    const auto a = model(torch::tensor({7, 8, 9}, torch::kInt64).unsqueeze(0));
    const auto b = model(torch::tensor({7, 8, 50}, torch::kInt64).unsqueeze(0));
    EXPECT_TRUE(torch::allclose(a.slice(1, 0, 2), b.slice(1, 0, 2), 1e-5, 1e-6));
    EXPECT_FALSE(torch::allclose(a, b, 1e-5, 1e-6));
}

TEST(CausalLm, ABatchIsItsRows) {
    const auto source = checkpoint::Checkpoint::open(models / "tiny-gqa");
    const torch::NoGradGuard no_gradients;
    CausalLm model(source, ModelOptions{});
    const auto rows = torch::tensor({{7, 8, 9}, {10, 11, 12}}, torch::kInt64);
    const auto batched = model(rows);
    // MKL adds up products in an order that depends on how many rows there are: 1.7e-6 apart on a Zen 5, of logits up
    // to 3.8.
    EXPECT_TRUE(torch::allclose(batched[1], model(rows.slice(0, 1, 2))[0], 1e-5, 1e-5));
}

TEST(ParseDevice, TakesTheCpu) { EXPECT_TRUE(parse_device("cpu").is_cpu()); }

TEST(ParseDevice, RefusesWhatDoesNotWorkHereNamingTheOption) {
    for (const std::string name : {"cuda:999", "tpu", "meta", ""}) {
        try {
            parse_device(name);
            ADD_FAILURE() << name << " was accepted";
        } catch (const core::Error& error) {
            EXPECT_THAT(error.what(), testing::HasSubstr("--device")) << name;
        }
    }
}

TEST(ParseDevice, WithoutAGpuCudaSaysHowToGetOne) {
    if (torch::cuda::is_available()) GTEST_SKIP() << "this machine has a CUDA device";
    try {
        parse_device("cuda");
        ADD_FAILURE() << "cuda was accepted";
    } catch (const core::Error& error) {
        EXPECT_THAT(error.what(), testing::HasSubstr("MHA2MLA_CUDA"));
    }
}

}  // namespace
}  // namespace mha2mla::model
