#include "eval/answers.h"

#include <filesystem>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"

namespace mha2mla::eval {
namespace {

class AnswersTest : public testing::Test {
protected:
    AnswersTest()
        : model_(checkpoint::Checkpoint::open(MHA2MLA_FIXTURES "/models/tiny-text")),
          words_(tokenizer::load_tokenizer(model_.tokenizer_files(), "tiny-text")) {}

    std::vector<Question> questions() const {
        std::vector<Question> list;
        for (const char* text : {"the cat", "the hen ran to", "a", "the cat sat on the mat"}) {
            list.push_back({text, words_->encode(text, true), 9, {}});
        }
        return list;
    }

    std::vector<std::string> answers(const runtime::DecoderOptions& options, int parallel) {
        runtime::Decoder decoder(model_, options, pool_, progress_);
        ResultsFile results;
        const auto asked = questions();
        answer({decoder, pool_, *words_, parallel}, asked, results, progress_, {});
        std::vector<std::string> texts;
        for (const auto& question : asked) texts.push_back(answer_of(question, results).text);
        return texts;
    }

    runtime::DecoderOptions plain_ = {.weights = kernels::WeightFormat::f32,
                                      .output_weights = {},
                                      .packed_weights = {},
                                      .kv_cache = cache::plain_format(core::DType::f32),
                                      .context_tokens = 64,
                                      .sequences = 2};
    checkpoint::Checkpoint model_;
    std::unique_ptr<tokenizer::Tokenizer> words_;
    core::ThreadPool pool_{2};
    core::Progress progress_;
};

TEST_F(AnswersTest, TogetherAndOneByOneAreTheSame) {
    const auto together = answers(plain_, 2);
    EXPECT_EQ(together, answers(plain_, 1));
    EXPECT_NE(together[0], together[3]);
    EXPECT_FALSE(together[0].empty());
}

TEST_F(AnswersTest, WhatIsAnsweredIsNotAskedAgain) {
    runtime::Decoder decoder(model_, plain_, pool_, progress_);
    const auto asked = questions();
    ResultsFile results;
    results.add(asked[1].id, {{"text", "kept"}, {"prompt_tokens", 1}, {"generated_tokens", 2}});
    answer({decoder, pool_, *words_, 2}, asked, results, progress_, {});
    EXPECT_EQ(results.size(), asked.size());
    EXPECT_EQ(answer_of(asked[1], results).text, "kept");
    EXPECT_EQ(answer_of(asked[0], results).prompt_tokens, std::ssize(asked[0].prompt));
    EXPECT_EQ(answer_of(asked[0], results).generated_tokens, 9);
}

TEST_F(AnswersTest, AStopTokenEndsAnAnswerAndIsNoPartOfIt) {
    auto asked = questions();
    for (int token = 0; token < words_->vocab_size(); ++token) asked[0].stop_tokens.push_back(token);
    for (const int parallel : {1, 2}) {
        runtime::Decoder decoder(model_, plain_, pool_, progress_);
        ResultsFile results;
        answer({decoder, pool_, *words_, parallel}, asked, results, progress_, {});
        EXPECT_EQ(answer_of(asked[0], results).text, "");
        EXPECT_EQ(answer_of(asked[1], results).generated_tokens, 9);
    }
}

TEST_F(AnswersTest, AnAnswerHasItsLeastNumberOfTokens) {
    auto asked = questions();
    runtime::Decoder decoder(model_, plain_, pool_, progress_);
    ResultsFile free, bound;
    answer({decoder, pool_, *words_, 2}, asked, free, progress_, {});
    for (auto& question : asked) {
        question.stop_tokens = words_->encode(answer_of(question, free).text, false);
        question.min_tokens = 1;
    }
    answer({decoder, pool_, *words_, 2}, asked, bound, progress_, {});
    for (const auto& question : asked) EXPECT_GE(answer_of(question, bound).generated_tokens, 1) << question.id;
}

/// Asks for a stop once a question is answered.
class StoppingProgress : public core::Progress {
public:
    void update(std::int64_t done, const std::string&) override {
        if (done > 0) source.request_stop();
    }
    std::stop_source source;
};

TEST_F(AnswersTest, AStopKeepsWhatIsAnswered) {
    auto asked = questions();
    for (std::size_t i = 1; i < asked.size(); ++i) asked[i].max_tokens = 40;
    for (const int parallel : {1, 2}) {
        runtime::Decoder decoder(model_, plain_, pool_, progress_);
        ResultsFile results;
        StoppingProgress progress;
        const Answerer answerer{decoder, pool_, *words_, parallel};
        EXPECT_THROW(answer(answerer, asked, results, progress, progress.source.get_token()), core::Cancelled);
        EXPECT_EQ(results.size(), 1u);
        EXPECT_EQ(answer_of(asked[0], results).generated_tokens, 9);
    }
}

TEST_F(AnswersTest, AResultOfAnotherKindIsAnError) {
    ResultsFile results;
    const auto asked = questions();
    results.add(asked[0].id, {{"text", 3}});
    EXPECT_THROW(answer_of(asked[0], results), core::Error);
}

}  // namespace
}  // namespace mha2mla::eval
