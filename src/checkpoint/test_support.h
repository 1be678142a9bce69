#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/model_config.h"
#include "checkpoint/tensors.h"
#include "checkpoint/writer.h"
#include "core/error.h"
#include "core/file.h"
#include "core/random.h"
#include "core/test_support.h"

namespace mha2mla::checkpoint::test {

using core::test::TemporaryDirectory;

/// The message of the core::Error that `action` throws; "" where it throws none.
template <typename Action>
std::string error_of(Action action) {
    try {
        action();
    } catch (const core::Error& error) {
        return error.what();
    }
    return "";
}

/// Small numbers; about 1 for norms.
inline std::vector<float> random_values(const TensorSpec& spec, core::Random& random) {
    std::vector<float> values(static_cast<std::size_t>(element_count(spec.shape)));
    const bool is_norm = spec.name.find("norm") != std::string::npos;
    for (float& value : values) {
        const double noise = 2 * random.uniform() - 1;
        value = static_cast<float>(is_norm ? 1 + 0.3 * noise : 0.4 * noise);
    }
    return values;
}

/// A model with seeded random weights in f32.
inline void write_random_model(const ModelConfig& config, const std::filesystem::path& path) {
    const auto specs = expected_tensors(config);
    CheckpointWriter writer(path, specs, {.dtype = core::DType::f32, .replace = true});
    core::Random random(11);
    for (const auto& spec : specs) writer.write(spec.name, random_values(spec, random));
    writer.add_file("config.json", config_to_json(config, {}).dump());
    writer.finish();
}

/// A config.json of a tiny Llama: 2 layers, 4 query heads on 2 KV heads of width 8.
inline core::Json tiny_config_json() {
    return core::Json::parse(R"({"model_type": "llama", "vocab_size": 16, "hidden_size": 12, "intermediate_size": 10,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "torch_dtype": "float32"})");
}

inline ModelConfig tiny_config() { return parse_config(tiny_config_json(), "config.json"); }

/// The same converted: ranks 5 and 3, rotary widths 4 and 2 with different pairs in both heads.
inline ModelConfig tiny_mla_config() {
    auto config = tiny_config();
    config.model_type = "mha2mla";
    config.attention = MlaConfig{.kv_lora_rank = {5, 3},
                                 .qk_rope_head_dim = {4, 2},
                                 .qk_nope_head_dim = {4, 6},
                                 .v_head_dim = 8,
                                 .num_rope_key_heads = 2,
                                 .rope_pairs = {{{0, 2}, {3, 1}}, {{2}, {0}}},
                                 .softmax_scale = 1 / std::sqrt(8.0),
                                 .source_model_type = "llama"};
    return config;
}

/// Every optional part of the format: factors and rotary rows of the query, the positional part and exact sinks.
inline ModelConfig exact_mla_config() {
    auto config = tiny_mla_config();
    config.attention_bias = true;
    auto& mla = std::get<MlaConfig>(config.attention);
    mla.positional_part = mla.q_nope_factor = mla.q_rope_factor = mla.q_rope_proj = true;
    mla.sink_tokens = 4;
    return config;
}

/// Distinct small numbers that bf16 and f16 hold exactly.
inline std::vector<float> exact_values(std::size_t count, int seed) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) {
        values[i] = static_cast<float>(static_cast<int>(i * 7 + static_cast<std::size_t>(seed) * 13) % 251 - 125) / 8;
    }
    return values;
}

/// A safetensors file from its header's text and its data.
inline std::string safetensors_file(const std::string& header, const std::string& data) {
    std::string file;
    for (std::size_t i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xff);
    return file + header + data;
}

inline std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace mha2mla::checkpoint::test
