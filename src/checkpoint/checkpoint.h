#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/model_config.h"
#include "checkpoint/tensors.h"

namespace mha2mla::checkpoint {

/// A model on disk: config + named tensors + tokenizer files, whatever the format. Cheap to open (files are mapped).
/// Immutable; reading from several threads is safe.
class Checkpoint {
public:
    /// Opens a Hugging Face directory, one of our MLA directories, or a .gguf file. Checks that exactly the expected
    /// tensors are there with the expected shapes. Throws Error naming file, tensor and remedy.
    static Checkpoint open(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return path_; }
    const ModelConfig& config() const { return config_; }
    /// The config.json object as found ({} for GGUF).
    const core::Json& source_config() const { return source_config_; }
    /// "safetensors" or "gguf".
    const std::string& format() const { return format_; }
    /// Tokenizer files (tokenizer.json, tokenizer_config.json, ..., generation_config.json) by name with their
    /// contents: as found beside the tensors, or made from the GGUF vocabulary.
    const std::map<std::string, std::string>& tokenizer_files() const { return tokenizer_files_; }

    const TensorSource& tensors() const { return *tensors_; }
    bool has(std::string_view name) const { return tensors_->shape_of(name).has_value(); }
    /// Fills `out` with the tensor, which must have `shape`. Throws Error with name, expected and got.
    void read(std::string_view name, const Shape& shape, std::span<float> out) const;
    std::vector<float> read(std::string_view name, const Shape& shape) const;
    void read_rows(std::string_view name, const Shape& shape, std::int64_t first_row, std::int64_t rows,
                   std::span<float> out) const;

private:
    static Checkpoint open_file(const std::filesystem::path& path);
    static Checkpoint open_directory(const std::filesystem::path& path);
    void check_shape(std::string_view name, const Shape& shape) const;

    std::filesystem::path path_;
    std::string format_;
    ModelConfig config_;
    core::Json source_config_;
    std::map<std::string, std::string> tokenizer_files_;
    std::shared_ptr<const TensorSource> tensors_;
};

}  // namespace mha2mla::checkpoint
