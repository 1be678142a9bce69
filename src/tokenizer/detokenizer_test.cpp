#include <gtest/gtest.h>

#include "core/utf8.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/test_support.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::tokenizer {
namespace {

/// A tokenizer of tests/fixtures: "byte level" has a token for each byte, "byte fallback" follows Llama-2's rules.
std::unique_ptr<Tokenizer> small_tokenizer(const std::string& name) {
    return tokenizer_from_json(fixture("small_tokenizers.json").at(name).at("tokenizer").dump(), name);
}

std::vector<int> byte_ids(const Tokenizer& tokenizer, const std::string& bytes) {
    std::vector<int> ids;
    for (const char byte : bytes) ids.push_back(*tokenizer.id_of(byte_level_spelling({&byte, 1})));
    return ids;
}

std::vector<std::string> pushed(const Tokenizer& tokenizer, const std::vector<int>& ids, bool special = false) {
    Detokenizer detokenizer(tokenizer, special);
    std::vector<std::string> texts;
    for (const int id : ids) texts.push_back(detokenizer.push(id));
    texts.push_back(detokenizer.finish());
    return texts;
}

TEST(Detokenizer, HoldsBackHalfACodePoint) {
    const auto tokenizer = small_tokenizer("byte level");
    EXPECT_EQ(pushed(*tokenizer, byte_ids(*tokenizer, "a\xf0\x9f\xa6\x99z")),
              (std::vector<std::string>{"a", "", "", "", "\xf0\x9f\xa6\x99", "z", ""}));
}

TEST(Detokenizer, ReplacesWhatCanNeverBecomeACodePoint) {
    const auto tokenizer = small_tokenizer("byte level");
    const std::string mark = "\xef\xbf\xbd";
    EXPECT_EQ(pushed(*tokenizer, byte_ids(*tokenizer, "\xff\xf0\x9fx\xe2\x82")),
              (std::vector<std::string>{mark, "", "", mark + "x", "", "", mark}));
}

TEST(Detokenizer, PiecesAreTheWholeTextWhateverTheTokens) {
    const auto tokenizer = small_tokenizer("byte level");
    const auto ids = byte_ids(*tokenizer, "caf\xc3\xa9 \xed\xa0\x80 \xe4\xbd\xa0\xe5 end\xf0");
    std::string text;
    for (const auto& piece : pushed(*tokenizer, ids)) {
        EXPECT_EQ(core::valid_utf8_prefix(piece), piece.size());
        text += piece;
    }
    EXPECT_EQ(text, tokenizer->decode(ids));
}

TEST(Detokenizer, DropsTheFirstSpaceOfLlama2AndNoOther) {
    const auto tokenizer = small_tokenizer("byte fallback");
    const int the = *tokenizer->id_of("\xe2\x96\x81the");
    EXPECT_EQ(pushed(*tokenizer, {the, the}), (std::vector<std::string>{"the", " the", ""}));
    EXPECT_EQ(tokenizer->decode(tokenizer->encode("  the", false)), "  the");
    EXPECT_EQ(small_tokenizer("byte level")->decode(small_tokenizer("byte level")->encode(" the", false)), " the");
}

TEST(Detokenizer, BeginsANewTextAfterFinish) {
    const auto tokenizer = small_tokenizer("byte fallback");
    const int the = *tokenizer->id_of("\xe2\x96\x81the");
    Detokenizer detokenizer(*tokenizer);
    EXPECT_EQ(detokenizer.push(the), "the");
    EXPECT_EQ(detokenizer.finish(), "");
    EXPECT_EQ(detokenizer.push(the), "the");
}

TEST(Detokenizer, LeavesSpecialTokensOutUnlessAsked) {
    const auto tokenizer = small_tokenizer("byte fallback");
    const int the = *tokenizer->id_of("\xe2\x96\x81the");
    EXPECT_EQ(pushed(*tokenizer, {1, the}), (std::vector<std::string>{"", "the", ""}));
    EXPECT_EQ(pushed(*tokenizer, {1, the}, true), (std::vector<std::string>{"<s>", " the", ""}));
}

TEST(Detokenizer, ByteFallbackTokensAreBytes) {
    const auto tokenizer = small_tokenizer("byte fallback");
    const auto ids = tokenizer->encode("\xc3\xa9", false);
    EXPECT_EQ(ids.size(), 3u);  // the space, and two bytes
    EXPECT_EQ(pushed(*tokenizer, ids), (std::vector<std::string>{"", "", "\xc3\xa9", ""}));
}

TEST(Detokenizer, IdsWithoutATokenSayNothing) {
    const auto tokenizer = small_tokenizer("byte level");
    EXPECT_EQ(tokenizer->decode(std::vector{-1, tokenizer->vocab_size(), 1 << 30}), "");
}

TEST(Tokenizer, InvalidBytesOfATextCountAsTheReplacementCharacter) {
    const auto tokenizer = small_tokenizer("byte level");
    EXPECT_EQ(tokenizer->encode("a\xff", false), tokenizer->encode("a\xef\xbf\xbd", false));
}

TEST(ByteLevel, SpellsEveryByteDifferently) {
    std::string bytes;
    for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
    EXPECT_EQ(bytes_of_byte_level(byte_level_spelling(bytes)), bytes);
    EXPECT_EQ(byte_level_spelling(" a\n"),
              "\xc4\xa0"
              "a\xc4\x8a");  // as GPT-2's vocabulary has it
    EXPECT_EQ(bytes_of_byte_level("a b"), std::nullopt);
}

}  // namespace
}  // namespace mha2mla::tokenizer
