#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tokenizer/test_support.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::tokenizer {
namespace {

using core::Json;
using testing::HasSubstr;

/// A whole tokenizer in few lines: "a", "b", "ab", special "<s>" and "</s>", no pre-tokenizer.
Json tiny() {
    return Json::parse(R"({
        "added_tokens": [{"id": 3, "content": "<s>", "special": true}, {"id": 4, "content": "</s>", "special": true}],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

std::string message_of(const Json& json) {
    try {
        tokenizer_from_json(json.dump(), "some/file");
    } catch (const core::Error& error) {
        return error.what();
    }
    return "no error";
}

std::string message_after(const std::string& patch) { return message_of(tiny().patch(Json::parse("[" + patch + "]"))); }

TEST(TokenizerJson, TinyOneWorks) {
    const auto tokenizer = tokenizer_from_json(tiny().dump(), "tiny");
    EXPECT_EQ(tokenizer->encode("ab<s>ba", false), (std::vector{2, 3, 1, 0}));
    EXPECT_EQ(tokenizer->vocab_size(), 5);
    EXPECT_EQ(tokenizer->id_of("</s>"), 4);
    EXPECT_EQ(tokenizer->id_of("c"), std::nullopt);
}

struct BadFile {
    const char* name;
    const char* patch;  // JSON patch operations on tiny()
    const char* said;   // part of the message
};

void PrintTo(const BadFile& file, std::ostream* out) { *out << file.name; }

class BadTokenizerJson : public testing::TestWithParam<BadFile> {};

TEST_P(BadTokenizerJson, IsRefusedWithTheReasonAndTheFile) {
    const auto message = message_after(GetParam().patch);
    EXPECT_THAT(message, HasSubstr(GetParam().said));
    EXPECT_THAT(message, HasSubstr("some/file"));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadTokenizerJson,
    testing::Values(
        BadFile{"HugeId", R"({"op": "add", "path": "/model/vocab/c", "value": 2147483647})", "2147483647"},
        BadFile{"WideId", R"({"op": "add", "path": "/model/vocab/c", "value": 18446744073709551615})", "'c'"},
        BadFile{"NegativeId", R"({"op": "add", "path": "/model/vocab/c", "value": -1})", "'c'"},
        BadFile{"FractionalId", R"({"op": "add", "path": "/model/vocab/c", "value": 0.5})", "'c'"},
        BadFile{"SharedId", R"({"op": "add", "path": "/model/vocab/c", "value": 1})", "same id 1"},
        BadFile{"HugeAddedId", R"({"op": "replace", "path": "/added_tokens/0/id", "value": 1099511627776})", "'id'"},
        BadFile{"AddedIdTaken", R"({"op": "replace", "path": "/added_tokens/0/id", "value": 2})", "'<s>'"},
        BadFile{"AddedTwice", R"({"op": "replace", "path": "/added_tokens/1/content", "value": "<s>"})", "two ids"},
        BadFile{"VocabularyNoObject", R"({"op": "replace", "path": "/model/vocab", "value": ["a"]})", "'vocab'"},
        BadFile{"NoModel", R"({"op": "remove", "path": "/model"})", "'model'"},
        BadFile{"MergeOfStranger", R"({"op": "add", "path": "/model/merges/0", "value": "a c"})", "'ac'"},
        BadFile{"MergeWithoutResult", R"({"op": "add", "path": "/model/merges/0", "value": "b a"})", "'ba'"},
        BadFile{"MergeOfOne", R"({"op": "add", "path": "/model/merges/0", "value": "a"})", "two tokens"},
        BadFile{"MergeOfThree", R"({"op": "add", "path": "/model/merges/0", "value": ["a", "b", "a"]})", "two tokens"},
        BadFile{"MergeOfNumbers", R"({"op": "add", "path": "/model/merges/0", "value": [0, 1]})", "two tokens"},
        BadFile{"Unigram", R"({"op": "replace", "path": "/model/type", "value": "Unigram"})", "Unigram"},
        BadFile{"Dropout", R"({"op": "add", "path": "/model/dropout", "value": 0.1})", "dropout"},
        BadFile{"WordSuffix", R"({"op": "add", "path": "/model/end_of_word_suffix", "value": "</w>"})", "suffix"},
        BadFile{"UnknownUnk", R"({"op": "add", "path": "/model/unk_token", "value": "<unk>"})", "unk_token"},
        BadFile{"Lowercase", R"({"op": "add", "path": "/normalizer", "value": {"type": "Lowercase"}})", "Lowercase"},
        BadFile{"ReplaceNothing",
                R"({"op": "add", "path": "/normalizer",
                    "value": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}})",
                "pattern"},
        BadFile{"Punctuation", R"({"op": "add", "path": "/pre_tokenizer", "value": {"type": "Punctuation"}})",
                "Punctuation"},
        BadFile{"BrokenPattern",
                R"({"op": "add", "path": "/pre_tokenizer",
                    "value": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}})",
                "pattern"},
        BadFile{"OtherBehaviour",
                R"({"op": "add", "path": "/pre_tokenizer",
                    "value": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Removed"}})",
                "Removed"},
        BadFile{"DecoderThatDoesNotFit", R"({"op": "replace", "path": "/decoder", "value": {"type": "ByteLevel"}})",
                "does not fit"},
        BadFile{"WordPieceDecoder", R"({"op": "replace", "path": "/decoder", "value": {"type": "WordPiece"}})",
                "WordPiece"},
        BadFile{"BertProcessing", R"({"op": "add", "path": "/post_processor", "value": {"type": "BertProcessing"}})",
                "BertProcessing"},
        BadFile{"TemplateOutOfRange",
                R"({"op": "add", "path": "/post_processor", "value": {"type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}],
                    "special_tokens": {"x": {"ids": [5]}}}})",
                "'ids'"}),
    [](const auto& tested) { return tested.param.name; });

TEST(TokenizerJson, GarbageIsRefused) {
    for (const std::string bytes : {"", "{", "[]", "null", "\xff", "{\"model\": 1}"}) {
        EXPECT_THROW(tokenizer_from_json(bytes, "x"), core::Error) << bytes;
    }
}

TEST(TokenizerJson, APatternThatWouldTakeForeverIsStopped) {
    auto json = tiny();
    json["pre_tokenizer"] = {
        {"type", "Split"}, {"pattern", {{"Regex", "(?:(a|aa|aaa|b)+)+$"}}}, {"behavior", "Isolated"}};
    const auto tokenizer = tokenizer_from_json(json.dump(), "x");
    EXPECT_THROW(tokenizer->encode(std::string(4000, 'a') + "c", false), core::Error);
}

TEST(TokenizerJson, ANormalizerThatBlowsTextUpIsStopped) {
    auto json = tiny();
    auto& steps = (json["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}})["normalizers"];
    for (int i = 0; i < 20; ++i) {
        steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(60, 'a')}});
    }
    const auto tokenizer = tokenizer_from_json(json.dump(), "x");
    EXPECT_THROW(tokenizer->encode(std::string(100, 'a'), false), core::Error);
}

TEST(TokenizerJson, AMegabyteMayBeOneWord) {
    const auto tokenizer = tokenizer_from_json(tiny().dump(), "x");
    std::string text;
    for (int i = 0; i < 500'000; ++i) text += "ab";
    EXPECT_EQ(tokenizer->encode(text, false), std::vector<int>(500'000, 2));
}

/// "<s>" before and "</s>" behind every text.
constexpr const char* both_ends = R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
    "special_tokens": {"<s>": {"ids": [3]}, "</s>": {"ids": [4]}}})";

std::vector<int> encoded_with(const std::string& post_processor, const std::string& config) {
    auto json = tiny();
    json["post_processor"] = Json::parse(post_processor);
    return load_tokenizer({{"tokenizer.json", json.dump()}, {"tokenizer_config.json", config}}, "x")->encode("a", true);
}

TEST(LoadTokenizer, TheTemplateSaysWhatStandsAroundATextUnlessTheSettingsDo) {
    EXPECT_EQ(encoded_with("null", "{}"), (std::vector{0}));
    EXPECT_EQ(encoded_with(both_ends, "{}"), (std::vector{3, 0, 4}));
    EXPECT_EQ(encoded_with(both_ends, R"({"add_bos_token": false, "add_eos_token": null})"), (std::vector{0, 4}));
    EXPECT_EQ(encoded_with("null", R"({"add_bos_token": true, "bos_token": "<s>"})"), (std::vector{3, 0}));
    EXPECT_EQ(encoded_with("null", R"({"add_eos_token": true, "eos_token": {"content": "</s>"}})"),
              (std::vector{0, 4}));
    const auto sequence =
        std::string(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, )") + both_ends + "]}";
    EXPECT_EQ(encoded_with(sequence, "{}"), (std::vector{3, 0, 4}));
}

TEST(LoadTokenizer, SettingsThatCannotBeFollowedAreErrors) {
    EXPECT_THROW(encoded_with("null", R"({"add_bos_token": true, "bos_token": "<bos>"})"), core::Error);
    EXPECT_THROW(encoded_with("null", R"({"add_bos_token": true})"), core::Error);
    EXPECT_THROW(encoded_with("null", R"({"add_bos_token": "yes"})"), core::Error);
}

TEST(LoadTokenizer, SaysWhatIsMissing) {
    try {
        load_tokenizer({{"tokenizer_config.json", "{}"}}, "some/model");
        FAIL();
    } catch (const core::Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("tokenizer.json or tokenizer.model"));
        EXPECT_THAT(error.what(), HasSubstr("some/model"));
    }
}

}  // namespace
}  // namespace mha2mla::tokenizer
