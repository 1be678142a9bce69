#include <gtest/gtest.h>

#include "core/error.h"
#include "tokenizer/test_support.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::tokenizer {
namespace {

class SentencePiece : public testing::Test {
protected:
    void SetUp() override {
        if (!std::filesystem::exists(data_folder() / model_file)) {
            GTEST_SKIP() << "no data in " << data_folder() << " (set MHA2MLA_DATA)";
        }
        model_ = data_file(model_file);
    }

    std::unique_ptr<Tokenizer> load(const std::string& config) const {
        return load_tokenizer({{"tokenizer.model", model_}, {"tokenizer_config.json", config}}, "llama2");
    }

    static constexpr const char* model_file = "tokenizers/llama2-tokenizer.model";
    std::string model_;
};

TEST_F(SentencePiece, AddsBosUnlessTheSettingsSayOtherwise) {
    EXPECT_EQ(load("{}")->encode("Hello", true), (std::vector{1, 15043}));
    EXPECT_EQ(load(R"({"add_bos_token": false})")->encode("Hello", true), (std::vector{15043}));
    EXPECT_EQ(load(R"({"add_eos_token": true})")->encode("Hello", true), (std::vector{1, 15043, 2}));
    EXPECT_EQ(load("{}")->encode("Hello", false), (std::vector{15043}));
}

TEST_F(SentencePiece, ControlTokensInTheTextAreFoundWhereAsked) {
    const auto tokenizer = load("{}");
    EXPECT_EQ(tokenizer->encode("</s>Hello", false, true), (std::vector{2, 15043}));
    EXPECT_NE(tokenizer->encode("</s>Hello", false, false).front(), 2);
    EXPECT_EQ(tokenizer->decode(std::vector{1, 15043, 2}), "Hello");
    EXPECT_EQ(tokenizer->decode(std::vector{1, 15043, 2}, true), "<s> Hello</s>");
}

TEST_F(SentencePiece, GivesBackTheText) {
    const auto tokenizer = load("{}");
    for (const std::string text : {"", " ", "  two", "\n\ttab", "caf\xc3\xa9 \xf0\x9f\xa6\x99", "end  "}) {
        EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, true)), text);
    }
}

TEST_F(SentencePiece, FindsTokens) {
    const auto tokenizer = load("{}");
    EXPECT_EQ(tokenizer->vocab_size(), 32000);
    EXPECT_EQ(tokenizer->id_of("</s>"), 2);
    EXPECT_EQ(tokenizer->id_of("<unk>"), 0);
    EXPECT_EQ(tokenizer->id_of("no such token"), std::nullopt);
    EXPECT_EQ(tokenizer->token_bytes(13, false), "\n");  // <0x0A>
    EXPECT_EQ(tokenizer->token_bytes(32000, false), "");
}

TEST_F(SentencePiece, DamagedFilesAreRefused) {
    EXPECT_THROW(tokenizer_from_sentencepiece("", "x"), core::Error);
    EXPECT_THROW(tokenizer_from_sentencepiece("garbage", "x"), core::Error);
    EXPECT_THROW(tokenizer_from_sentencepiece(model_.substr(0, model_.size() / 2), "x"), core::Error);
}

}  // namespace
}  // namespace mha2mla::tokenizer
