#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "checkpoint/model_config.h"
#include "checkpoint/tensors.h"

namespace mha2mla::checkpoint {

/// A GGUF file seen as the Hugging Face directory that it was made from.
struct GgufModel {
    ModelConfig config;
    std::map<std::string, std::string> tokenizer_files;  ///< by name; empty where the file has no vocabulary
    std::shared_ptr<const TensorSource> tensors;         ///< Hugging Face names, shapes and row order
};

/// Opens a GGUF v2 or v3 file of architecture "llama". Mapped: nothing but the header is read. Throws Error naming file
/// and key or tensor.
/// Source: docs/gguf.md of github.com/ggml-org/ggml.
GgufModel open_gguf(const std::filesystem::path& path);

/// The same from bytes, which must outlive the model; `where` names them in errors.
GgufModel read_gguf(std::span<const std::byte> bytes, const std::string& where);

}  // namespace mha2mla::checkpoint
