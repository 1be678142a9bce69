#include "eval/fidelity.h"

#include <cmath>
#include <gtest/gtest.h>

#include "core/error.h"

namespace mha2mla::eval {
namespace {

/// Two tiny models of one vocabulary, as far from each other as random ones are.
class FidelityTest : public testing::Test {
protected:
    std::unique_ptr<runtime::Decoder> load(const std::string& name) {
        const auto model = checkpoint::Checkpoint::open(MHA2MLA_FIXTURES "/models/" + name);
        const runtime::DecoderOptions options{.weights = kernels::WeightFormat::f32,
                                              .kv_cache = cache::plain_format(core::DType::f32)};
        return std::make_unique<runtime::Decoder>(model, options, pool_, progress_);
    }

    /// log softmax of every token's logits, token by token in plain loops.
    std::vector<std::vector<double>> log_probabilities(runtime::Decoder& decoder, std::span<const int> tokens) {
        std::vector<std::vector<double>> rows;
        auto sequence = decoder.new_sequence();
        for (const int token : tokens) {
            const auto logits = decoder.forward(sequence, std::span(&token, 1));
            double sum = 0;
            for (const float logit : logits) sum += std::exp(double{logit});
            rows.emplace_back();
            for (const float logit : logits) rows.back().push_back(double{logit} - std::log(sum));
        }
        return rows;
    }

    core::Progress progress_;
    core::ThreadPool pool_{2};
};

TEST_F(FidelityTest, EqualsPlainLoops) {
    const auto source = load("tiny-gqa"), model = load("tiny-gqa-tied");
    std::vector<int> tokens;
    for (int i = 0; i < 2 * 101; ++i) tokens.push_back((i * i * 7 + i) % 128);
    const auto result = fidelity({tokens, 101}, {.first = 1}, {*source, *model, pool_}, progress_, {});
    const auto window = std::span(tokens).subspan(101);
    const auto p = log_probabilities(*source, window.first(100)), q = log_probabilities(*model, window.first(100));
    std::vector<double> kl(100, 0.0);
    double same = 0, nll = 0;
    for (std::size_t i = 0; i < 100; ++i) {
        for (std::size_t v = 0; v < p[i].size(); ++v) kl[i] += std::exp(p[i][v]) * (p[i][v] - q[i][v]);
        same += std::ranges::max_element(p[i]) - p[i].begin() == std::ranges::max_element(q[i]) - q[i].begin();
        nll -= q[i][static_cast<std::size_t>(window[i + 1])];
    }
    EXPECT_EQ(result.tokens, 100);
    EXPECT_NEAR(result.mean_kl, std::accumulate(kl.begin(), kl.end(), 0.0) / 100, 1e-4);
    std::ranges::sort(kl);
    EXPECT_NEAR(result.kl_99, kl[98] + 0.01 * (kl[99] - kl[98]), 1e-4);
    EXPECT_DOUBLE_EQ(result.same_top, same / 100);
    EXPECT_NEAR(result.perplexity, std::exp(nll / 100), 1e-2);
}

TEST_F(FidelityTest, AModelIsFaithfulToItself) {
    const auto model = load("tiny-gqa"), same = load("tiny-gqa");
    const auto result = fidelity({std::vector<int>(80, 5), 40}, {}, {*model, *same, pool_}, progress_, {});
    EXPECT_EQ(result.mean_kl, 0);
    EXPECT_EQ(result.same_top, 1);
    EXPECT_EQ(result.perplexity, result.source_perplexity);
}

TEST_F(FidelityTest, RefusesATokenThatIsOnlyPredictedAndOutsideTheVocabulary) {
    const auto model = load("tiny-gqa"), same = load("tiny-gqa");
    std::vector<int> tokens(40, 5);
    tokens.back() = static_cast<int>(model->config().vocab_size);
    EXPECT_THROW(fidelity({tokens, 40}, {}, {*model, *same, pool_}, progress_, {}), core::Error);
}

TEST_F(FidelityTest, RefusesAnotherVocabulary) {
    const auto model = load("tiny-gqa"), other = load("tiny-text");
    ASSERT_NE(model->config().vocab_size, other->config().vocab_size);
    EXPECT_THROW(fidelity({std::vector<int>(80, 5), 40}, {}, {*other, *model, pool_}, progress_, {}), core::Error);
}

}  // namespace
}  // namespace mha2mla::eval
