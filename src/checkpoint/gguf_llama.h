#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "checkpoint/gguf_file.h"
#include "checkpoint/gguf_vocabulary.h"
#include "checkpoint/model_config.h"

namespace mha2mla::checkpoint {

/// Refuses parts of a split model, and every architecture but llama by name.
void check_kind(const GgufMetadata& metadata);

/// The config.json that the file was made from. Metadata that could change what the model computes and that we do not
/// know is an Error naming the key.
ModelConfig llama_config(const GgufFile& file, const std::optional<GgufVocabulary>& vocabulary);

/// A tensor of the file in Hugging Face's terms.
struct LlamaTensorName {
    std::string name;          ///< "model.layers.0.self_attn.q_proj.weight"
    bool interleaved = false;  ///< rows of each head lie in llama.cpp's rotary order: pair by pair
};

/// Empty where a llama model has no such tensor.
std::optional<LlamaTensorName> llama_tensor_name(std::string_view gguf_name);

/// Llama-3.1's rotary frequency factors [head_dim / 2]: part of the config, not of the model's tensors.
inline constexpr std::string_view rope_factors_tensor = "rope_freqs.weight";

}  // namespace mha2mla::checkpoint
