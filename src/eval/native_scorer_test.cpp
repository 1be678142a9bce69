#include "eval/native_scorer.h"

#include <cmath>
#include <gtest/gtest.h>

namespace mha2mla::eval {
namespace {

TEST(NativeScorer, ScoresEachTokenByTheLogitsBeforeIt) {
    const auto model = checkpoint::Checkpoint::open(MHA2MLA_FIXTURES "/models/tiny-gqa");
    core::Progress progress;
    core::ThreadPool pool(2);
    runtime::Decoder decoder(model,
                             {.weights = kernels::WeightFormat::f32, .kv_cache = cache::plain_format(core::DType::f32)},
                             pool, progress);
    std::vector<int> tokens;
    for (int i = 0; i < 40; ++i) tokens.push_back((i * 37 + 5) % 128);
    const auto score = native_scorer(decoder, pool);
    const auto seen = score(tokens, 1);
    ASSERT_EQ(seen.size(), 39u);
    auto sequence = decoder.new_sequence();
    for (std::size_t i = 0; i < seen.size(); ++i) {
        const auto logits = decoder.forward(sequence, std::span(&tokens[i], 1));
        double sum = 0;
        for (const float logit : logits) sum += std::exp(double{logit});
        const auto next = static_cast<std::size_t>(tokens[i + 1]);
        EXPECT_NEAR(seen[i], std::log(sum) - double{logits[next]}, 1e-4) << "token " << i;
    }
    const auto last = score(tokens, 30);
    ASSERT_EQ(last.size(), 10u);
    for (std::size_t i = 0; i < last.size(); ++i) EXPECT_NEAR(last[i], seen[29 + i], 1e-4) << "token " << 30 + i;
    EXPECT_EQ(score(tokens, 1), seen) << "a window does not depend on the one before";
    EXPECT_EQ(decoder.kv_bytes().allocated, sequence.kv_bytes().allocated) << "a window leaves no page behind";
}

}  // namespace
}  // namespace mha2mla::eval
