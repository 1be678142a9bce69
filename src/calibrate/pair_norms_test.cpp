#include "calibrate/pair_norms.h"

#include <cmath>
#include <filesystem>
#include <gtest/gtest.h>
#include <vector>

#include "core/error.h"
#include "core/progress.h"
#include "model/decoder_layer.h"
#include "model/weights.h"

namespace mha2mla::calibrate {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;

const fs::path models = fs::path(MHA2MLA_FIXTURES) / "models";
const std::vector<std::vector<int>> windows{{5, 17, 99, 3}, {64, 2, 2, 120, 31, 8}};

/// Mean norms of the first layer's pairs by plain loops: embedding, RMS norm, projection, norm.
std::vector<double> expected_norms(const Checkpoint& source, const char* projection, int heads) {
    const auto& config = source.config();
    const auto hidden = static_cast<std::size_t>(config.hidden_size);
    const auto half = static_cast<std::size_t>(config.head_dim) / 2;
    const auto rows = static_cast<std::int64_t>(heads) * config.head_dim;
    const auto embedding = source.read("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
    const auto gain = source.read("model.layers.0.input_layernorm.weight", {config.hidden_size});
    const auto weight =
        source.read(std::string("model.layers.0.self_attn.") + projection + ".weight", {rows, config.hidden_size});
    std::vector<double> norms(static_cast<std::size_t>(heads) * half);
    double tokens = 0;
    for (const auto& window : windows) {
        for (const int token : window) {
            const float* x = embedding.data() + static_cast<std::size_t>(token) * hidden;
            double square = config.rms_norm_eps;
            for (std::size_t e = 0; e < hidden; ++e) square += x[e] * x[e] / static_cast<double>(hidden);
            const auto output = [&](std::size_t row) {
                double sum = 0;
                for (std::size_t e = 0; e < hidden; ++e) sum += weight[row * hidden + e] * gain[e] * x[e];
                return sum / std::sqrt(square);
            };
            for (std::size_t i = 0; i < norms.size(); ++i) {
                const std::size_t row = i / half * 2 * half + i % half;
                norms[i] += std::hypot(output(row), output(row + half));
            }
            tokens += 1;
        }
    }
    for (auto& norm : norms) norm /= tokens;
    return norms;
}

void expect_near(const torch::Tensor& got, const std::vector<double>& expected) {
    const auto flat = got.contiguous().view(-1);
    ASSERT_EQ(flat.numel(), static_cast<std::int64_t>(expected.size()));
    for (std::int64_t i = 0; i < flat.numel(); ++i) {
        const double value = expected[static_cast<std::size_t>(i)];
        EXPECT_NEAR(flat[i].item<double>(), value, 1e-5 * std::abs(value)) << i;
    }
}

TEST(PairNorms, EqualPlainLoops) {
    const auto source = Checkpoint::open(models / "tiny-gqa");
    LayerWalk walk(source, windows, model::ModelOptions{});
    const auto norms = measure_pair_norms(walk, {});
    expect_near(norms.query_HP, expected_norms(source, "q_proj", source.config().num_attention_heads));
    expect_near(norms.key_GP, expected_norms(source, "k_proj", source.config().num_key_value_heads));
}

TEST(PairNorms, RotationChangesNone) {
    const auto x = torch::randn({1, 9, 2, 8});
    const auto halves = x.chunk(2, -1);
    const auto angle = torch::arange(9, torch::kFloat32).view({1, 9, 1, 1}) * 0.7;
    const auto turned = torch::cat(
        {halves[0] * angle.cos() - halves[1] * angle.sin(), halves[1] * angle.cos() + halves[0] * angle.sin()}, -1);
    PairNormSum plain;
    plain.add(x, x);
    PairNormSum rotated;
    rotated.add(turned, turned);
    EXPECT_TRUE(torch::allclose(plain.mean().key_GP, rotated.mean().key_GP, 1e-5));
}

TEST(LayerWalk, CarriesTheHiddenStatesFromLayerToLayer) {
    const auto source = Checkpoint::open(models / "tiny-gqa");
    const torch::NoGradGuard no_gradients;
    const model::ModelOptions options;
    LayerWalk walk(source, {windows[0]}, options);
    walk.step({[](model::GqaAttentionImpl&, const torch::Tensor&) {}});
    torch::Tensor seen;
    walk.step({[&](model::GqaAttentionImpl&, const torch::Tensor& x) { seen = x; }});

    const auto& config = source.config();
    const auto table = model::read_tensor(source, "model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
    const auto ids = torch::tensor({5, 17, 99, 3}, torch::kInt64).unsqueeze(0);
    auto first = model::load_layer(source, 0, options);
    auto second = model::load_layer(source, 1, options);
    const auto rested = [](const torch::Tensor& x) { return x.to(torch::kBFloat16).to(torch::kFloat32); };
    const auto expected = second->attention_input(rested(first(rested(torch::embedding(table, ids)))));
    EXPECT_TRUE(torch::allclose(seen, expected, 1e-5, 1e-6));
}

TEST(LayerWalk, RefusesTokensOutsideTheVocabularyAndEmptyWindows) {
    const auto source = Checkpoint::open(models / "tiny-gqa");
    for (const auto& window : {std::vector<int>{1, 128}, std::vector<int>{-1}, std::vector<int>{}}) {
        EXPECT_THROW(LayerWalk(source, {window}, model::ModelOptions{}), core::Error);
    }
}

TEST(PairNorms, StopsWhenAskedTo) {
    const auto source = Checkpoint::open(models / "tiny-gqa");
    LayerWalk walk(source, windows, model::ModelOptions{});
    std::stop_source stop;
    stop.request_stop();
    EXPECT_THROW(measure_pair_norms(walk, stop.get_token()), core::Cancelled);
}

}  // namespace
}  // namespace mha2mla::calibrate
