#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "checkpoint/config_fields.h"
#include "checkpoint/gguf.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_check.h"
#include "core/error.h"
#include "core/file.h"

namespace mha2mla::checkpoint {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t max_text_bytes = std::size_t{256} << 20;
constexpr const char* generation_config = "generation_config.json";

constexpr std::array tokenizer_file_names{
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json",     "merges.txt",      "chat_template.jinja",   generation_config};

[[noreturn]] void refuse_path(const fs::path& path, std::string what, std::string remedy) {
    throw core::Error({.what = std::move(what), .where = path.string(), .remedy = std::move(remedy)});
}

[[noreturn]] void refuse_file(const fs::path& path) {
    const auto name = path.filename().string();
    const bool part_of_model = path.extension() == ".safetensors" || path.extension() == ".json";
    refuse_path(path, "not a model",
                part_of_model ? fmt::format("pass the directory that holds {}", name)
                              : "pass a Hugging Face directory or a .gguf file");
}

/// A directory with a config but without safetensors: says which weights are there instead.
[[noreturn]] void refuse_weights(const fs::path& directory) {
    std::error_code error;
    if (fs::exists(directory / "pytorch_model.bin", error) ||
        fs::exists(directory / "pytorch_model.bin.index.json", error)) {
        refuse_path(directory, "the weights are in PyTorch's pickle format (pytorch_model.bin)",
                    "save them as safetensors with transformers first");
    }
    refuse_path(directory, "has a config.json but no model.safetensors", "fetch the weights, or pass a .gguf file");
}

[[noreturn]] void refuse_directory(const fs::path& directory) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(directory, error)) {
        if (entry.path().extension() != ".gguf") continue;
        refuse_path(directory, "not a model (no config.json)",
                    fmt::format("pass the .gguf file itself: {}", entry.path().string()));
    }
    refuse_path(directory, "not a model (no config.json)", "pass a Hugging Face directory or a .gguf file");
}

bool has_weights(const fs::path& directory) {
    std::error_code error;
    return fs::exists(directory / "model.safetensors", error) ||
           fs::exists(directory / "model.safetensors.index.json", error);
}

std::map<std::string, std::string> read_tokenizer_files(const fs::path& directory) {
    std::map<std::string, std::string> files;
    std::error_code error;
    for (const auto* name : tokenizer_file_names) {
        if (fs::exists(directory / name, error)) files[name] = core::read_text(directory / name, max_text_bytes);
    }
    return files;
}

/// The optional parts of the query say by being there that they are a part of the model.
void find_query_parts(const TensorSource& tensors, ModelConfig& config) {
    auto* const mla = std::get_if<MlaConfig>(&config.attention);
    if (mla == nullptr) return;
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        const auto has = [&](const char* name) { return tensors.shape_of(layer_tensor(layer, name)).has_value(); };
        mla->q_nope_factor |= has("self_attn.q_nope_factor");
        mla->q_rope_factor |= has("self_attn.q_rope_factor");
        mla->q_rope_proj |= has("self_attn.q_rope_proj.weight");
    }
}

/// Chat models end their turn with a token that generation_config.json alone may name.
void add_generation_eos(const std::map<std::string, std::string>& files, const fs::path& directory,
                        ModelConfig& config) {
    const auto found = files.find(generation_config);
    if (found == files.end()) return;
    const auto where = (directory / generation_config).string();
    const auto json = core::parse_json(found->second, where);
    auto& known = config.eos_token_ids;
    for (const int id : read_token_ids(core::JsonObject(json, where), "eos_token_id", config.vocab_size)) {
        if (std::find(known.begin(), known.end(), id) == known.end()) known.push_back(id);
    }
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& path) {
    std::error_code error;
    if (!fs::exists(path, error)) refuse_path(path, "no such file or directory", "check the path");
    return fs::is_directory(path, error) ? open_directory(path) : open_file(path);
}

Checkpoint Checkpoint::open_file(const fs::path& path) {
    if (path.extension() != ".gguf") refuse_file(path);
    auto model = open_gguf(path);
    Checkpoint checkpoint;
    checkpoint.path_ = path;
    checkpoint.format_ = "gguf";
    checkpoint.config_ = std::move(model.config);
    checkpoint.source_config_ = core::Json::object();
    checkpoint.tokenizer_files_ = std::move(model.tokenizer_files);
    checkpoint.tensors_ = std::move(model.tensors);
    check_tensors(checkpoint.config_, *checkpoint.tensors_, path.string());
    return checkpoint;
}

Checkpoint Checkpoint::open_directory(const fs::path& path) {
    const auto config_path = path / "config.json";
    std::error_code error;
    if (!fs::exists(config_path, error)) refuse_directory(path);
    Checkpoint checkpoint;
    checkpoint.path_ = path;
    checkpoint.format_ = "safetensors";
    checkpoint.source_config_ = core::parse_json(core::read_text(config_path, max_text_bytes), config_path.string());
    checkpoint.config_ = parse_config(checkpoint.source_config_, config_path.string());
    if (!has_weights(path)) refuse_weights(path);
    checkpoint.tokenizer_files_ = read_tokenizer_files(path);
    add_generation_eos(checkpoint.tokenizer_files_, path, checkpoint.config_);
    checkpoint.tensors_ = std::make_shared<SafetensorsSource>(path);
    find_query_parts(*checkpoint.tensors_, checkpoint.config_);
    check_tensors(checkpoint.config_, *checkpoint.tensors_, path.string());
    return checkpoint;
}

void Checkpoint::read(std::string_view name, const Shape& shape, std::span<float> out) const {
    read_rows(name, shape, 0, shape.empty() ? 1 : shape[0], out);
}

std::vector<float> Checkpoint::read(std::string_view name, const Shape& shape) const {
    check_shape(name, shape);  // before the allocation
    std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
    read(name, shape, values);
    return values;
}

void Checkpoint::read_rows(std::string_view name, const Shape& shape, std::int64_t first_row, std::int64_t rows,
                           std::span<float> out) const {
    check_shape(name, shape);
    tensors_->read_rows(name, first_row, rows, out);
}

void Checkpoint::check_shape(std::string_view name, const Shape& shape) const {
    check_tensor({std::string(name), shape}, *tensors_, path_.string());
}

}  // namespace mha2mla::checkpoint
