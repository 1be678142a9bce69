#include <cmath>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/test_support.h"
#include "model/causal_lm.h"

namespace mha2mla::model {
namespace {

using torch::Tensor;

/// A model in double precision with random weights. Gradients of everything in it meet finite differences.
CausalLm random_model(const checkpoint::ModelConfig& config, ModelOptions options = {}) {
    torch::manual_seed(7);
    options.dtype = torch::kFloat64;
    const Weights weights(
        [](const std::string& name, const checkpoint::Shape& shape) {
            const bool is_norm = name.find("norm") != std::string::npos;
            return is_norm ? 1 + 0.3 * torch::randn(shape) : 0.4 * torch::randn(shape);
        },
        options);
    return CausalLm(weights, config);
}

const Tensor ids = torch::tensor({{1, 5, 9, 3, 14, 7, 2, 8, 11}, {4, 4, 13, 0, 6, 10, 12, 15, 3}}, torch::kInt64);

/// A number that depends on every logit.
Tensor scalar_of(CausalLm& model) {
    const auto logits = model(ids);
    const auto slopes = torch::sin(torch::arange(logits.numel(), logits.options())).view_as(logits);
    return (logits * slopes).sum();
}

/// (f(p + h d) - f(p - h d)) / 2h
double difference_quotient(CausalLm& model, Tensor parameter, const Tensor& direction) {
    const torch::NoGradGuard no_gradients;
    constexpr double h = 1e-5;
    const auto moved = [&](double by) {
        parameter.add_(direction, by);
        const double value = scalar_of(model).item<double>();
        parameter.sub_(direction, by);
        return value;
    };
    return (moved(h) - moved(-h)) / (2 * h);
}

void expect_gradients(CausalLm& model) {
    scalar_of(model).backward();
    for (auto& item : model->named_parameters()) {
        const auto direction = torch::randn_like(item.value());
        const double expected = difference_quotient(model, item.value(), direction);
        const double got = (item.value().grad() * direction).sum().item<double>();
        EXPECT_NEAR(got, expected, 1e-6 * (1 + std::abs(expected))) << item.key();
    }
}

checkpoint::ModelConfig biased_source() {
    auto config = checkpoint::test::tiny_config();
    config.attention_bias = config.mlp_bias = true;
    return config;
}

TEST(Gradients, OfAGroupedQueryModelWithBiases) {
    auto model = random_model(biased_source());
    expect_gradients(model);
}

TEST(Gradients, OfALatentModelWithRotaryKeysOfEachHead) {
    auto model = random_model(checkpoint::test::tiny_mla_config());
    expect_gradients(model);
}

TEST(Gradients, OfALatentModelWithEveryOptionalPart) {
    auto model = random_model(checkpoint::test::exact_mla_config());
    expect_gradients(model);
}

TEST(Gradients, OfAbsorbedAttention) {
    auto model = random_model(checkpoint::test::exact_mla_config(), {.attention = AttentionForm::absorbed});
    expect_gradients(model);
}

/// Recomputing changes no bit, neither of the result nor of a gradient.
TEST(Gradients, OfRecomputedLayersAreTheSame) {
    auto kept = random_model(checkpoint::test::exact_mla_config());
    auto again = random_model(checkpoint::test::exact_mla_config(), {.recompute = true});
    const auto a = scalar_of(kept);
    const auto b = scalar_of(again);
    EXPECT_TRUE(torch::equal(a, b));
    a.backward();
    b.backward();
    const auto expected = kept->named_parameters();
    for (const auto& item : again->named_parameters()) {
        EXPECT_TRUE(torch::equal(item.value().grad(), expected[item.key()].grad())) << item.key();
    }
}

TEST(Gradients, OfRecomputedLayersPassAFrozenEmbedding) {
    auto model = random_model(checkpoint::test::tiny_mla_config(), {.recompute = true});
    model->decoder()->embed_tokens->weight.set_requires_grad(false);
    scalar_of(model).backward();
    EXPECT_FALSE(model->decoder()->embed_tokens->weight.grad().defined());
    const auto gradient = model->named_parameters()["model.layers.0.self_attn.kv_b_proj.weight"].grad();
    ASSERT_TRUE(gradient.defined());
    EXPECT_GT(gradient.abs().max().item<double>(), 0);
}

/// A little rounding changes gradients a little: none is lost on the way.
TEST(Gradients, PassARoundedCache) {
    ModelOptions rounded;
    rounded.emulated_cache = cache::parse_cache_format("int8", "test");
    auto model = random_model(checkpoint::test::tiny_mla_config(), rounded);
    auto exact = random_model(checkpoint::test::tiny_mla_config());
    scalar_of(model).backward();
    scalar_of(exact).backward();
    const auto expected = exact->named_parameters();
    for (const auto& item : model->named_parameters()) {
        const auto of_exact = expected[item.key()].grad();
        EXPECT_LT((item.value().grad() - of_exact).norm().item<double>(), 0.3 * of_exact.norm().item<double>())
            << item.key();
    }
}

}  // namespace
}  // namespace mha2mla::model
