#include <gtest/gtest.h>
#include <sstream>

#include "core/fingerprint.h"
#include "tokenizer/test_support.h"
#include "tokenizer/tokenizer.h"

namespace mha2mla::tokenizer {
namespace {

std::vector<std::string> split(const std::string& text, const std::string& separator) {
    std::vector<std::string> parts;
    std::size_t begin = 0;
    for (auto end = text.find(separator); end != std::string::npos; end = text.find(separator, begin)) {
        parts.push_back(text.substr(begin, end - begin));
        begin = end + separator.size();
    }
    parts.push_back(text.substr(begin));
    return parts;
}

std::vector<int> numbers(const std::string& line) {
    std::istringstream stream(line);
    std::vector<int> result;
    for (int number = 0; stream >> number;) result.push_back(number);
    return result;
}

/// Published texts (separated as in llama.cpp's test files) and, line by line, the ids expected for them.
void expect_published_ids(const Tokenizer& tokenizer, const std::string& name) {
    const auto texts = split(data_file("tokenizers/" + name + ".inp"), "\n__ggml_vocab_test__\n");
    const auto lines = split(data_file("tokenizers/" + name + ".out"), "\n");
    ASSERT_GT(texts.size(), 30u);
    ASSERT_GE(lines.size(), texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
        EXPECT_EQ(tokenizer.encode(texts[i], false, false), numbers(lines[i])) << '"' << texts[i] << '"';
    }
}

class Reference : public testing::Test {
protected:
    void SetUp() override {
        if (!std::filesystem::exists(data_folder() / "tokenizers")) {
            GTEST_SKIP() << "no data in " << data_folder() << " (set MHA2MLA_DATA)";
        }
    }

    static std::unique_ptr<Tokenizer> from_json(const std::string& name) {
        return tokenizer_from_json(data_file("tokenizers/" + name + "-tokenizer.json"), name);
    }
};

TEST_F(Reference, Gpt2GivesThePublishedIds) { expect_published_ids(*from_json("gpt2"), "gpt-2"); }

TEST_F(Reference, Llama2JsonGivesThePublishedIds) { expect_published_ids(*from_json("llama2"), "llama-spm"); }

TEST_F(Reference, Llama2ModelGivesThePublishedIds) {
    expect_published_ids(*tokenizer_from_sentencepiece(data_file("tokenizers/llama2-tokenizer.model"), "llama2"),
                         "llama-spm");
}

/// Over the ids as 32 bit integers, as tools/make_tokenizer_fixtures.py computes it.
std::string digest(const std::vector<int>& ids) {
    core::Fingerprint fingerprint;
    for (const int id : ids) fingerprint.add(static_cast<std::uint32_t>(id));
    return fingerprint.hex();
}

class ReferenceDigests : public Reference, public testing::WithParamInterface<std::string> {};

TEST_P(ReferenceDigests, EveryTextGivesTheIdsOfHuggingFaceAndComesBack) {
    const auto tokenizer = from_json(GetParam());
    const auto files = fixture("digests.json").at(GetParam());
    ASSERT_GE(files.size(), 10u);
    for (const auto& [file, expected] : files.items()) {
        const auto text = data_file("text/" + file);
        const auto ids = tokenizer->encode(text, false);
        EXPECT_EQ(ids.size(), expected.at("count").get<std::size_t>()) << file;
        EXPECT_EQ(digest(ids), expected.at("digest").get<std::string>()) << file;
        EXPECT_TRUE(tokenizer->decode(ids) == text) << file;
    }
}

INSTANTIATE_TEST_SUITE_P(All, ReferenceDigests, testing::Values("smollm2", "gpt2", "llama2", "minimind"),
                         [](const auto& tested) { return tested.param; });

TEST_F(Reference, TheTwoLlama2FilesAgreeOnWholeTexts) {
    const auto json = from_json("llama2");
    const auto model = tokenizer_from_sentencepiece(data_file("tokenizers/llama2-tokenizer.model"), "llama2");
    for (const std::string file : {"tinystories-248k.txt", "pg-metamorphosis.txt"}) {
        const auto text = data_file("text/" + file);
        const auto ids = model->encode(text, true);
        EXPECT_EQ(ids.front(), 1);
        EXPECT_EQ(json->encode(text, true), ids) << file;
        EXPECT_EQ(model->decode(ids), text) << file;
    }
}

}  // namespace
}  // namespace mha2mla::tokenizer
