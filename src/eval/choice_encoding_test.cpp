#include "eval/choice_encoding.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "runtime/decoder.h"

namespace mha2mla::eval {
namespace {

class ChoiceEncoding : public testing::Test {
protected:
    TokenChoice encoded(const std::string& context, const std::string& continuation) const {
        return encode({context, continuation}, *words_, 7, "here");
    }
    std::vector<int> tokens(const std::string& text) const { return words_->encode(text, false); }

    checkpoint::Checkpoint model_ = checkpoint::Checkpoint::open(MHA2MLA_FIXTURES "/models/tiny-text");
    std::unique_ptr<tokenizer::Tokenizer> words_ = tokenizer::load_tokenizer(model_.tokenizer_files(), "tiny-text");
};

TEST_F(ChoiceEncoding, SpacesBehindTheContextGoToTheContinuation) {
    const auto choice = encoded("the cat ", "sat");
    EXPECT_EQ(choice.context, tokens("the cat"));
    EXPECT_EQ(choice.continuation, tokens(" sat"));
}

TEST_F(ChoiceEncoding, AnEmptyContextIsTheTokenThatBeginsATextAndNothingIsAnError) {
    const auto choice = encoded("", "sat");
    EXPECT_EQ(choice.context, std::vector<int>{7});
    EXPECT_EQ(choice.continuation, tokens("sat"));
    EXPECT_THROW(encoded("the", ""), core::Error);
}

}  // namespace
}  // namespace mha2mla::eval
