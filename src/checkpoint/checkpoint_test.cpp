#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>

#include "checkpoint/test_support.h"
#include "checkpoint/writer.h"

namespace mha2mla::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::exact_values;
using test::TemporaryDirectory;
using test::tiny_config;
using test::tiny_mla_config;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

void write_model(const fs::path& target, const ModelConfig& config, const std::vector<TensorSpec>& specs,
                 const std::map<std::string, std::string>& files = {}) {
    CheckpointWriter writer(target, specs, {.dtype = core::DType::f32});
    for (const auto& spec : specs) {
        writer.write(spec.name, exact_values(static_cast<std::size_t>(element_count(spec.shape)), 1));
    }
    writer.add_file("config.json", config_to_json(config, {}).dump());
    for (const auto& [name, contents] : files) writer.add_file(name, contents);
    writer.finish();
}

std::string open_error(const fs::path& path) {
    return error_of([&] { Checkpoint::open(path); });
}

TEST(Checkpoint, GathersConfigTensorsAndTokenizerFiles) {
    const TemporaryDirectory directory;
    const auto path = directory.path() / "model";
    write_model(path, tiny_config(), expected_tensors(tiny_config()),
                {{"tokenizer.json", "{}"},
                 {"tokenizer.model", std::string("\0\1", 2)},
                 {"generation_config.json", R"({"eos_token_id": [2, 7]})"},
                 {"README.md", "card"}});
    const auto checkpoint = Checkpoint::open(path);
    EXPECT_EQ(checkpoint.path(), path);
    EXPECT_EQ(checkpoint.format(), "safetensors");
    EXPECT_EQ(checkpoint.source_config()["vocab_size"], 16);
    EXPECT_THAT(checkpoint.config().eos_token_ids, ElementsAre(2, 7)) << "generation_config.json adds its own";
    EXPECT_EQ(checkpoint.tokenizer_files().size(), 3u);
    EXPECT_EQ(checkpoint.tokenizer_files().at("tokenizer.model"), std::string("\0\1", 2));
    EXPECT_TRUE(checkpoint.has("model.norm.weight"));
    EXPECT_FALSE(checkpoint.has("model.norm.bias"));
}

TEST(Checkpoint, ReadsByNameAndShape) {
    const TemporaryDirectory directory;
    const auto path = directory.path() / "model";
    write_model(path, tiny_config(), expected_tensors(tiny_config()));
    const auto checkpoint = Checkpoint::open(path);
    const auto whole = checkpoint.read("lm_head.weight", {16, 12});
    EXPECT_EQ(whole, exact_values(16 * 12, 1));
    checkpoint.tensors().release_pages();
    EXPECT_EQ(checkpoint.read("lm_head.weight", {16, 12}), whole) << "pages that were given back are read again";
    std::vector<float> rows(2 * 12);
    checkpoint.read_rows("lm_head.weight", {16, 12}, 3, 2, rows);
    EXPECT_EQ(rows, std::vector<float>(whole.begin() + 36, whole.begin() + 60));
    EXPECT_THAT(error_of([&] {
                    checkpoint.read("lm_head.weight", {12, 16});
                }),
                HasSubstr("tensor 'lm_head.weight' has the wrong shape, expected [12, 16], got [16, 12]"));
    EXPECT_THAT(error_of([&] { checkpoint.read("lm_head.bias", {16}); }),
                HasSubstr("model: tensor 'lm_head.bias' is missing, expected shape [16]"));
}

struct BrokenTensors {
    ModelConfig config;
    const char* removed;
    std::vector<TensorSpec> added;
    const char* message;  // "": opens
};

TEST(Checkpoint, HoldsTheTensorsAgainstTheConfig) {
    auto tied = tiny_config();
    tied.tie_word_embeddings = true;
    const std::string attention = "model.layers.0.self_attn.";
    const BrokenTensors cases[] = {
        {tiny_config(), "", {{attention + "rotary_emb.inv_freq", {4}}}, ""},
        {tied, "", {{"lm_head.weight", {16, 12}}}, ""},
        {tiny_config(), "lm_head.weight", {}, "tensor 'lm_head.weight' is missing, expected shape [16, 12]"},
        {tiny_config(),
         "model.norm.weight",
         {{"model.norm.weight", {13}}},
         "tensor 'model.norm.weight' has the wrong shape, expected [12], got [13]"},
        {tiny_config(),
         "",
         {{attention + "q_norm.weight", {8}}},
         "tensor 'model.layers.0.self_attn.q_norm.weight' has no place in a model of type 'llama'"},
        {tiny_config(), "", {{attention + "q_proj.bias", {32}}}, "q_proj.bias' has no place"},
        {tiny_mla_config(),
         "",
         {{attention + "q_nope_factor", {4, 3, 2}}},
         "tensor 'model.layers.0.self_attn.q_nope_factor' has the wrong shape, expected [4, 2, 2], got [4, 3, 2]"},
        {tiny_mla_config(),
         "",
         {{attention + "q_rope_factor", {4, 2, 2}}},
         "tensor 'model.layers.1.self_attn.q_rope_factor' is missing, expected shape [4, 1, 2]"},
        {tiny_mla_config(),
         "",
         {{attention + "q_rope_proj.weight", {16, 11}}},
         "tensor 'model.layers.0.self_attn.q_rope_proj.weight' has the wrong shape, expected [16, 12], got [16, 11]"},
        {tiny_mla_config(), "", {{attention + "q_rope_proj.bias", {16}}}, "q_rope_proj.bias' has no place"},
        {tiny_mla_config(), "", {{attention + "k_mean", {2, 8}}}, "k_mean' has no place"},
        {tiny_mla_config(), "", {{attention + "k_proj.weight", {16, 12}}}, "k_proj.weight' has no place"},
    };
    const TemporaryDirectory directory;
    for (const auto& broken : cases) {
        auto specs = expected_tensors(broken.config);
        std::erase_if(specs, [&](const TensorSpec& spec) { return spec.name == broken.removed; });
        specs.insert(specs.end(), broken.added.begin(), broken.added.end());
        fs::remove_all(directory.path() / "model");
        write_model(directory.path() / "model", broken.config, specs);
        const auto message = open_error(directory.path() / "model");
        EXPECT_THAT(message, HasSubstr(broken.message));
        EXPECT_EQ(message.empty(), *broken.message == '\0') << message;
    }
}

TEST(Checkpoint, FindsTheOptionalPartsOfMla) {
    const TemporaryDirectory directory;
    auto config = test::exact_mla_config();
    write_model(directory.path() / "model", config, expected_tensors(config));
    EXPECT_EQ(Checkpoint::open(directory.path() / "model").config(), config);
}

TEST(Checkpoint, SaysWhatIsNotAModelAndWhatToPass) {
    const TemporaryDirectory directory;
    const auto& root = directory.path();
    EXPECT_THAT(open_error(root / "nowhere"), HasSubstr("nowhere: no such file or directory; check the path"));
    core::write_text(root / "notes.txt", "text");
    EXPECT_THAT(open_error(root / "notes.txt"),
                HasSubstr("notes.txt: not a model; pass a Hugging Face directory or a .gguf file"));
    core::write_text(root / "model.safetensors", "text");
    EXPECT_THAT(open_error(root / "model.safetensors"),
                HasSubstr("not a model; pass the directory that holds model.safetensors"));
    EXPECT_THAT(open_error(root), HasSubstr("not a model (no config.json)"));
    core::write_text(root / "tiny.gguf", "text");
    EXPECT_THAT(open_error(root), HasSubstr("pass the .gguf file itself: " + (root / "tiny.gguf").string()));
    EXPECT_NE(open_error(root / "tiny.gguf"), "");
}

TEST(Checkpoint, NamesTheBrokenFile) {
    const TemporaryDirectory directory;
    const auto& root = directory.path();
    core::write_text(root / "config.json", "{");
    EXPECT_THAT(open_error(root), HasSubstr("config.json: not valid JSON"));
    core::write_text(root / "config.json", test::tiny_config_json().dump());
    EXPECT_THAT(open_error(root), HasSubstr("has a config.json but no model.safetensors; fetch the weights"));
    core::write_text(root / "pytorch_model.bin", "");
    EXPECT_THAT(open_error(root), HasSubstr("the weights are in PyTorch's pickle format (pytorch_model.bin); save them "
                                            "as safetensors with transformers first"));
    core::write_text(root / "model.safetensors", "short");
    EXPECT_THAT(open_error(root), HasSubstr("model.safetensors: file is too short for a safetensors header; the file "
                                            "is damaged or incomplete: fetch it again"));
    core::write_text(root / "generation_config.json", R"({"eos_token_id": 99})");
    EXPECT_THAT(open_error(root), HasSubstr("generation_config.json: field 'eos_token_id' is not usable"));
}

TEST(Checkpoint, NamesATruncatedFile) {
    const TemporaryDirectory directory;
    const auto path = directory.path() / "model";
    write_model(path, tiny_config(), expected_tensors(tiny_config()));
    const auto bytes = fs::file_size(path / "model.safetensors");
    fs::resize_file(path / "model.safetensors", bytes - 1);
    EXPECT_THAT(open_error(path), HasSubstr("model.safetensors, tensor 'lm_head.weight': field 'data_offsets'"));
    fs::resize_file(path / "model.safetensors", 100);
    EXPECT_THAT(open_error(path), HasSubstr("exceeds the file (100 bytes)"));
}

}  // namespace
}  // namespace mha2mla::checkpoint
