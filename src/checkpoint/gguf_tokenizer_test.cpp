#include "checkpoint/gguf_tokenizer.h"

#include <cstdlib>
#include <gmock/gmock.h>

#include "checkpoint/gguf.h"
#include "checkpoint/gguf_file.h"
#include "checkpoint/gguf_test_file.h"
#include "checkpoint/test_support.h"

namespace mha2mla::checkpoint {
namespace {

namespace fs = std::filesystem;
using core::Json;
using test::bytes_of;
using test::error_of;
using test::GgufFileWriter;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int normal = 1, unknown = 2, control = 3, user_defined = 4, byte = 6;

void add_vocabulary(GgufFileWriter& writer, const char* model, const std::vector<std::string>& tokens,
                    const std::vector<std::int32_t>& types) {
    writer.string("tokenizer.ggml.model", model).strings("tokenizer.ggml.tokens", tokens);
    writer.numbers("tokenizer.ggml.token_type", GgufType::i32, types);
}

GgufFileWriter byte_level(const std::string& pre) {
    GgufFileWriter writer;
    add_vocabulary(writer, "gpt2", {"<s>", "</s>", "a", "b", "ab", "<tool>"},
                   {control, control, normal, normal, normal, user_defined});
    writer.string("tokenizer.ggml.pre", pre).strings("tokenizer.ggml.merges", {"a b"});
    writer.u32("tokenizer.ggml.bos_token_id", 0).u32("tokenizer.ggml.eos_token_id", 1);
    return writer;
}

GgufFileWriter sentencepiece() {
    GgufFileWriter writer;
    add_vocabulary(writer, "llama", {"<unk>", "<s>", "<0x0A>", "h", "e", "he", "ehe", "\u2581", "hehe", "n\u00e9"},
                   {unknown, control, byte, normal, normal, normal, normal, normal, normal, normal});
    writer.numbers<float>("tokenizer.ggml.scores", GgufType::f32, {0, 0, 0, -9, -9, 0, -1, -9, -1, -2});
    writer.u32("tokenizer.ggml.unknown_token_id", 0).u32("tokenizer.ggml.bos_token_id", 1);
    writer.u32("tokenizer.ggml.padding_token_id", UINT32_MAX);
    return writer;
}

std::map<std::string, Json> files_of(const GgufFileWriter& writer) {
    const auto bytes = writer.bytes();
    const auto file = parse_gguf(bytes_of(bytes), "model.gguf");
    ModelConfig config;
    config.max_position_embeddings = 2048;
    std::map<std::string, Json> files;
    for (const auto& [name, text] : make_tokenizer_files(*read_vocabulary(file.metadata), config, "model.gguf")) {
        files[name] = Json::parse(text);
    }
    return files;
}

TEST(GgufTokenizer, ByteLevelBpeAsHuggingFaceWritesIt) {
    const auto json = files_of(byte_level("gpt-2"))["tokenizer.json"];
    EXPECT_EQ(json["model"]["vocab"], Json::parse(R"({"<s>":0, "</s>":1, "a":2, "b":3, "ab":4, "<tool>":5})"));
    EXPECT_EQ(json["model"]["merges"], Json::array({"a b"}));
    EXPECT_EQ(json["model"]["byte_fallback"], false);
    EXPECT_EQ(json["model"]["ignore_merges"], false);
    EXPECT_EQ(json["normalizer"], nullptr);
    EXPECT_EQ(
        json["pre_tokenizer"],
        Json::parse(R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})"));
    EXPECT_EQ(json["post_processor"], nullptr);
    EXPECT_EQ(json["decoder"]["type"], "ByteLevel");
}

TEST(GgufTokenizer, ControlTokensAreSpecialAndUserDefinedOnesAreNot) {
    const auto added = files_of(byte_level("gpt-2"))["tokenizer.json"]["added_tokens"];
    ASSERT_EQ(added.size(), 3u);
    EXPECT_EQ(added[1], Json::parse(R"({"id": 1, "content": "</s>", "single_word": false, "lstrip": false,
                                        "rstrip": false, "normalized": false, "special": true})"));
    EXPECT_EQ(added[2]["content"], "<tool>");
    EXPECT_EQ(added[2]["special"], false);
}

TEST(GgufTokenizer, EachFamilyHasItsPreTokenizer) {
    const auto smollm = files_of(byte_level("smollm"))["tokenizer.json"]["pre_tokenizer"]["pretokenizers"];
    ASSERT_EQ(smollm.size(), 2u);
    EXPECT_EQ(smollm[0], Json::parse(R"({"type": "Digits", "individual_digits": true})"));
    EXPECT_EQ(smollm[1]["use_regex"], true);

    const auto llama3 = files_of(byte_level("llama-bpe"))["tokenizer.json"];
    EXPECT_EQ(llama3["model"]["ignore_merges"], true);
    const auto split = llama3["pre_tokenizer"]["pretokenizers"][0];
    EXPECT_EQ(split["behavior"], "Isolated");
    EXPECT_EQ(split["pattern"]["Regex"],
              "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
              "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
    EXPECT_EQ(llama3["pre_tokenizer"]["pretokenizers"][1]["use_regex"], false);

    const auto qwen2 = files_of(byte_level("qwen2"))["tokenizer.json"];
    EXPECT_EQ(qwen2["normalizer"]["type"], "NFC");
    EXPECT_THAT(qwen2["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"].get<std::string>(),
                HasSubstr("|\\p{N}| ?"));
}

TEST(GgufTokenizer, BosAndEosRules) {
    EXPECT_EQ(files_of(byte_level("llama-bpe"))["tokenizer.json"]["post_processor"], Json::parse(R"({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}})"));
    auto without = byte_level("llama-bpe");
    EXPECT_EQ(files_of(without.boolean("tokenizer.ggml.add_bos_token", false))["tokenizer.json"]["post_processor"],
              nullptr);
    auto with_eos = byte_level("smollm");
    const auto eos = files_of(with_eos.boolean("tokenizer.ggml.add_eos_token", true))["tokenizer.json"];
    EXPECT_EQ(
        eos["post_processor"]["single"],
        Json::parse(R"([{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}])"));
}

TEST(GgufTokenizer, ConfigFilesNameTheSpecialTokens) {
    auto writer = byte_level("smollm");
    writer.u32("tokenizer.ggml.eot_token_id", 5).string("tokenizer.chat_template", "{{ messages }}");
    auto files = files_of(writer);
    EXPECT_EQ(files["generation_config.json"], Json::parse(R"({"bos_token_id": 0, "eos_token_id": [1, 5]})"));
    EXPECT_EQ(files["tokenizer_config.json"], Json::parse(R"({"add_bos_token": false, "add_eos_token": false,
        "clean_up_tokenization_spaces": false, "model_max_length": 2048, "bos_token": "<s>", "eos_token": "</s>",
        "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}"})"));
}

TEST(GgufTokenizer, SentencepieceMergesAreRebuiltFromScores) {
    const auto json = files_of(sentencepiece())["tokenizer.json"];
    // Best score first ("he" 0), then by id of the piece ("ehe" before "hehe"), then longest left part first.
    EXPECT_EQ(json["model"]["merges"], Json::parse(R"([["h", "e"], ["e", "he"], ["he", "he"], ["h", "ehe"]])"));
    EXPECT_EQ(json["model"]["byte_fallback"], true);
    EXPECT_EQ(json["model"]["unk_token"], "<unk>");
    EXPECT_EQ(json["model"]["fuse_unk"], true);
}

TEST(GgufTokenizer, SentencepieceNormalizesAndDecodesLikeLlama2) {
    const auto json = files_of(sentencepiece())["tokenizer.json"];
    EXPECT_EQ(json["normalizer"], Json::parse(R"({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})"));
    EXPECT_EQ(json["pre_tokenizer"], nullptr);
    EXPECT_EQ(json["decoder"], Json::parse(R"({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})"));
    auto without_prefix = sentencepiece();
    without_prefix.boolean("tokenizer.ggml.add_space_prefix", false);
    const auto bare = files_of(without_prefix)["tokenizer.json"];
    EXPECT_EQ(bare["normalizer"]["normalizers"].size(), 1u);
    EXPECT_EQ(bare["decoder"]["decoders"].size(), 3u);
}

struct Refusal {
    GgufFileWriter writer;
    const char* message;
};

GgufFileWriter broken_vocabulary(const std::vector<std::string>& tokens, const std::vector<std::int32_t>& types) {
    GgufFileWriter writer;
    add_vocabulary(writer, "gpt2", tokens, types);
    return writer.string("tokenizer.ggml.pre", "smollm").strings("tokenizer.ggml.merges", {});
}

TEST(GgufTokenizer, RefusesWhatItCannotReproduce) {
    auto long_piece = GgufFileWriter();
    add_vocabulary(long_piece, "llama", {std::string(300, 'x'), "b"}, {normal, normal});
    long_piece.numbers<float>("tokenizer.ggml.scores", GgufType::f32, {0, 0}).u32("tokenizer.ggml.bos_token_id", 1);
    const std::vector<Refusal> cases = {
        {byte_level("deepseek-llm"), "pre-tokenizer 'deepseek-llm' (metadata key 'tokenizer.ggml.pre')"},
        {GgufFileWriter().string("tokenizer.ggml.model", "bert"), "'tokenizer.ggml.model' is not usable"},
        {GgufFileWriter().string("tokenizer.ggml.model", "gpt2"), "'tokenizer.ggml.tokens' is missing"},
        {broken_vocabulary({"a", "a"}, {1, 1}), "expected distinct tokens, got 'a' twice"},
        {broken_vocabulary({"a\xff"}, {1}), "'tokenizer.ggml.tokens' is not usable, expected UTF-8"},
        {broken_vocabulary({"a"}, {1, 1}), "'tokenizer.ggml.token_type' is not usable, expected 1 items"},
        {broken_vocabulary({"a"}, {7}), "'tokenizer.ggml.token_type' is not usable"},
        {broken_vocabulary({"a"}, {1}).u32("tokenizer.ggml.eos_token_id", 1), "expected an integer from 0 to 0, got 1"},
        {broken_vocabulary({"a"}, {1}).boolean("tokenizer.ggml.add_bos_token", true), "bos_token_id' is not usable"},
        {sentencepiece().boolean("tokenizer.ggml.remove_extra_whitespaces", true), "text normalization"},
        {long_piece, "is too long for a sentencepiece"},
    };
    for (const auto& refusal : cases) {
        EXPECT_THAT(error_of([&] { files_of(refusal.writer); }),
                    AllOf(HasSubstr("model.gguf: "), HasSubstr(refusal.message)));
    }
}

fs::path shared_data() {
    const char* data = std::getenv("MHA2MLA_DATA");
    return data != nullptr ? data : MHA2MLA_SHARED_DATA;
}

TEST(GgufTokenizer, Smollm2VocabularyIsHuggingFacesFile) {
    const char* model = std::getenv("MHA2MLA_MODEL");
    const auto path = shared_data() / "tokenizers/smollm2-tokenizer.json";
    if (model == nullptr || !fs::exists(model)) GTEST_SKIP() << "MHA2MLA_MODEL does not name SmolLM2's GGUF file";
    if (!fs::exists(path)) GTEST_SKIP() << path << " is not there (set MHA2MLA_DATA)";
    const auto files = open_gguf(model).tokenizer_files;
    EXPECT_TRUE(Json::parse(files.at("tokenizer.json")) == Json::parse(core::read_text(path)));
}

}  // namespace
}  // namespace mha2mla::checkpoint
