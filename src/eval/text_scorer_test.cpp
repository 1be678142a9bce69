#include "eval/text_scorer.h"

#include <cmath>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "eval/native_scorer.h"

namespace mha2mla::eval {
namespace {

std::vector<int> random_tokens(std::size_t count, std::uint64_t seed) {
    core::Random random(seed);
    std::vector<int> tokens;
    while (tokens.size() < count) tokens.push_back(static_cast<int>(random.below(128)));
    return tokens;
}

ScoredText text(const std::vector<int>& beginning, std::vector<int> end) {
    ScoredText text{.tokens = beginning, .scored = beginning.size()};
    text.tokens.insert(text.tokens.end(), end.begin(), end.end());
    return text;
}

/// What the tree's nodes say about a text, put together again.
std::vector<int> read_by(const std::vector<PrefixNode>& nodes, std::size_t text) {
    std::vector<int> tokens;
    for (const auto& node : nodes) {
        if (std::ranges::find(node.texts, text) == node.texts.end()) continue;
        EXPECT_EQ(node.depth, tokens.size());
        tokens.insert(tokens.end(), node.tokens.begin(), node.tokens.end());
    }
    return tokens;
}

TEST(PrefixTree, SharesWhatTextsBeginWith) {
    const auto trunk = random_tokens(30, 1);
    auto question = trunk;
    question.insert(question.end(), {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    const std::vector<ScoredText> texts{text(question, {50}), text(question, {51}), text(question, {52, 53}),
                                        text(trunk, {90, 91, 92, 93, 94, 95, 96, 97, 98, 99}), text({99}, {3, 3})};
    const auto nodes = prefix_tree(texts, 8);
    for (std::size_t i = 0; i < texts.size(); ++i) {
        const std::vector<int> read(texts[i].tokens.begin(), texts[i].tokens.end() - 1);
        EXPECT_EQ(read_by(nodes, i), read) << "text " << i;
    }
    // {99, 3}; the trunk; behind it the question, which ends two texts; {52} behind it; the other end.
    EXPECT_EQ(nodes.size(), 5u);
    std::size_t tokens = 0, logits = 0;
    for (const auto& node : nodes) {
        tokens += node.tokens.size();
        logits += node.logits;
        EXPECT_LE(node.logits, node.tokens.size());
    }
    EXPECT_EQ(tokens, 30u + 10 + 1 + 9 + 2);
    EXPECT_EQ(logits, 2u + 1 /* before the ends behind the trunk */ + 1 + 1 + 9);
}

TEST(PrefixTree, FewSharedTokensMakeNoBranch) {
    const std::vector<ScoredText> texts{text({1, 2, 3}, {4, 5}), text({1, 2, 3}, {5, 6})};
    EXPECT_EQ(prefix_tree(texts, 8).size(), 2u);
    EXPECT_EQ(prefix_tree(texts, 3).size(), 3u);
}

class TextScorerTest : public testing::TestWithParam<std::string> {
protected:
    TextScorerTest() {
        runtime::DecoderOptions options{.weights = kernels::WeightFormat::f32,
                                        .kv_cache = cache::parse_cache_format(GetParam(), "test"),
                                        .as_decoded = true,
                                        .context_tokens = 320,
                                        .sequences = 16};
        decoder_.emplace(checkpoint::Checkpoint::open(MHA2MLA_FIXTURES "/models/tiny-gqa"), options, pool_, progress_);
    }

    /// A text's score as a window of its own.
    double alone(const ScoredText& text) {
        double sum = 0;
        for (const double nll : native_scorer(*decoder_, pool_)(text.tokens, text.scored)) sum -= nll;
        return sum;
    }

    void expect_as_alone(const std::vector<ScoredText>& texts, const std::vector<double>& scores) {
        // With codes a rounding of the open page's bf16 rows may turn a code.
        const double tolerance = GetParam() == "f32" ? 1e-5 : 2e-3;
        ASSERT_EQ(scores.size(), texts.size());
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const double expected = alone(texts[i]);
            EXPECT_NEAR(scores[i], expected, tolerance * std::abs(expected)) << "text " << i;
        }
    }

    core::Progress progress_;
    core::ThreadPool pool_{2};
    std::optional<runtime::Decoder> decoder_;
};

/// Questions with a common beginning of several pages, as worked examples are, and answers of unlike lengths.
std::vector<ScoredText> questions(std::uint64_t seed) {
    const auto examples = random_tokens(150, 3);
    std::vector<ScoredText> texts;
    for (std::uint64_t question = 0; question < 3; ++question) {
        auto context = examples;
        const auto own = random_tokens(20 + 7 * question, seed + question);
        context.insert(context.end(), own.begin(), own.end());
        for (std::uint64_t choice = 0; choice < 4; ++choice) {
            texts.push_back(text(context, random_tokens(1 + 3 * choice, seed + 10 * choice)));
        }
    }
    return texts;
}

TEST_P(TextScorerTest, EachTextGetsTheScoreThatItHasAlone) {
    TextScorer scorer(*decoder_, pool_);
    for (const std::uint64_t seed : {100, 200, 300}) {  // the later ones grow from the trunk of the one before
        const auto texts = questions(seed);
        expect_as_alone(texts, scorer.score(texts));
    }
    const std::vector<ScoredText> others{text(random_tokens(3, 7), {5}), text(random_tokens(90, 8), {1, 2, 3}),
                                         text(random_tokens(300, 9), random_tokens(20, 9))};
    expect_as_alone(others, scorer.score(others));
}

TEST_P(TextScorerTest, TakesNoMorePagesThanItSays) {
    const auto texts = questions(1);
    const auto free = decoder_->free_pages();
    TextScorer scorer(*decoder_, pool_);
    const std::int64_t pages = TextScorer::pages(texts);
    EXPECT_LT(pages, 3 * 4 * 4) << "what is shared counts once";
    std::vector<runtime::Sequence> others;  // leave just so many
    while (decoder_->free_pages() > pages) {
        others.push_back(decoder_->new_sequence());
        decoder_->forward(others.back(), random_tokens(1, 1));
    }
    const auto scores = scorer.score(texts);
    others.clear();
    expect_as_alone(texts, scores);
    EXPECT_GE(decoder_->free_pages(), free - 4) << "only the trunk stays";
}

TEST_P(TextScorerTest, RefusesATokenThatIsOnlyPredictedAndOutsideTheVocabulary) {
    TextScorer scorer(*decoder_, pool_);
    const auto vocab = static_cast<int>(decoder_->config().vocab_size);
    const std::vector<ScoredText> texts{text(random_tokens(3, 7), {5, vocab})};
    EXPECT_THROW(scorer.score(texts), core::Error);
}

INSTANTIATE_TEST_SUITE_P(Caches, TextScorerTest, testing::Values("f32", "int8", "int4"),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace mha2mla::eval
