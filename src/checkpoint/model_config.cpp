#include "checkpoint/model_config.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numbers>

#include "checkpoint/config_fields.h"
#include "checkpoint/mla_config.h"
#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

// Far above any published model; what exceeds them is a damaged file, refused before anything is allocated.
constexpr std::int64_t max_vocab_size = std::int64_t{4} << 20;
constexpr std::int64_t max_width = std::int64_t{1} << 20;
constexpr std::int64_t max_layers = 1024;
constexpr std::int64_t max_heads = 4096;
constexpr std::int64_t max_head_dim = 1024;
constexpr std::int64_t max_positions = std::int64_t{1} << 27;

constexpr double default_rope_theta = 10000;  // transformers' default; Llama-2's config.json relies on it

struct Rope {
    double theta = default_rope_theta;
    std::optional<Llama3RopeScaling> scaling;
};

int read_count(const core::JsonObject& fields, const char* key, std::int64_t max) {
    return static_cast<int>(fields.integer(key, 1, max));
}

std::string read_model_type(const core::JsonObject& fields) {
    const auto type = fields.string("model_type");
    if (type == "llama" || type == "mistral" || type == "mha2mla") return type;
    throw core::Error({.what = fmt::format("model type '{}' is not supported", type),
                       .expected = "'llama', 'mistral' or 'mha2mla'",
                       .where = fields.where()});
}

void read_sizes(const core::JsonObject& fields, ModelConfig& config) {
    config.vocab_size = read_count(fields, "vocab_size", max_vocab_size);
    config.hidden_size = read_count(fields, "hidden_size", max_width);
    config.intermediate_size = read_count(fields, "intermediate_size", max_width);
    config.num_hidden_layers = read_count(fields, "num_hidden_layers", max_layers);
    config.max_position_embeddings = read_count(fields, "max_position_embeddings", max_positions);
}

void read_heads(const core::JsonObject& fields, ModelConfig& config) {
    const int heads = read_count(fields, "num_attention_heads", max_heads);
    const auto kv_heads = static_cast<int>(fields.integer_or("num_key_value_heads", heads, 1, heads));
    if (heads % kv_heads != 0) {
        fields.fail("num_key_value_heads", fmt::format("a divisor of num_attention_heads ({})", heads));
    }
    if (!fields.has("head_dim") && config.hidden_size % heads != 0) {
        fields.fail("hidden_size", fmt::format("a multiple of num_attention_heads ({}), or a field 'head_dim'", heads));
    }
    config.num_attention_heads = heads;
    config.num_key_value_heads = kv_heads;
    const auto width = fields.integer_or("head_dim", config.hidden_size / heads, 2, max_head_dim);
    if (width % 2 != 0 || width < 2 || width > max_head_dim) {
        fields.fail(fields.has("head_dim") ? "head_dim" : "hidden_size",
                    fmt::format("an even head width from 2 to {}", max_head_dim));
    }
    config.head_dim = static_cast<int>(width);
}

double read_positive(const core::JsonObject& fields, const char* key) {
    const double value = fields.number(key);
    if (value <= 0) fields.fail(key, "a positive number");
    return value;
}

std::optional<Llama3RopeScaling> read_rope_scaling(const core::JsonObject& rope) {
    const char* type_key = rope.has("type") && !rope.has("rope_type") ? "type" : "rope_type";
    const auto type = rope.string(type_key);
    if (rope.number_or("partial_rotary_factor", 1) != 1) rope.fail("partial_rotary_factor", "1");
    if (type == "default") return std::nullopt;
    if (type != "llama3") rope.fail(type_key, "\"default\" or \"llama3\"");
    Llama3RopeScaling scaling{
        .factor = rope.number("factor"),
        .low_freq_factor = read_positive(rope, "low_freq_factor"),
        .high_freq_factor = read_positive(rope, "high_freq_factor"),
        .original_max_position_embeddings = read_count(rope, "original_max_position_embeddings", max_positions)};
    if (scaling.factor < 1) rope.fail("factor", "a number from 1");
    if (scaling.high_freq_factor <= scaling.low_freq_factor) rope.fail("high_freq_factor", "more than low_freq_factor");
    return scaling;
}

/// `rope_theta` and `rope_scaling` of transformers 4, or `rope_parameters` of transformers 5. Both may be there if they
/// agree.
Rope read_rope(const core::JsonObject& fields) {
    Rope rope;
    if (fields.has("rope_theta")) rope.theta = read_positive(fields, "rope_theta");
    if (fields.has("rope_scaling")) rope.scaling = read_rope_scaling(fields.object("rope_scaling"));
    if (!fields.has("rope_parameters")) return rope;

    const auto parameters = fields.object("rope_parameters");
    const auto scaling = read_rope_scaling(parameters);
    const double theta = parameters.has("rope_theta") ? read_positive(parameters, "rope_theta") : rope.theta;
    if (fields.has("rope_theta") && theta != rope.theta) fields.fail("rope_theta", "the value of rope_parameters");
    if (fields.has("rope_scaling") && scaling != rope.scaling) {
        fields.fail("rope_scaling", "the values of rope_parameters");
    }
    return {.theta = theta, .scaling = scaling};
}

void read_special_tokens(const core::JsonObject& fields, ModelConfig& config) {
    if (fields.has("bos_token_id")) {
        config.bos_token_id = static_cast<int>(fields.integer("bos_token_id", 0, config.vocab_size - 1));
    }
    config.eos_token_ids = read_token_ids(fields, "eos_token_id", config.vocab_size);
}

/// Refuses, by name, what would change the model's mathematics and what we do not compute.
void refuse_unsupported(const core::JsonObject& fields, const ModelConfig& config) {
    if (fields.string_or("hidden_act", "silu") != "silu") fields.fail("hidden_act", "\"silu\"");
    if (fields.number_or("partial_rotary_factor", 1) != 1) fields.fail("partial_rotary_factor", "1");
    if (fields.boolean_or("rope_interleaved", false)) fields.fail("rope_interleaved", "false");
    const std::int64_t positions = config.max_position_embeddings;
    if (fields.has("sliding_window") && fields.integer("sliding_window", 0, INT64_MAX) < positions) {
        fields.fail("sliding_window", fmt::format("null, or at least max_position_embeddings ({})", positions));
    }
    if (fields.has("quantization_config")) {
        throw core::Error({.what = "quantized weights ('quantization_config') are not supported",
                           .where = fields.where(),
                           .remedy = "use the model's F32, F16 or BF16 checkpoint, or a GGUF file"});
    }
}

double scaled_frequency(double frequency, const Llama3RopeScaling& scaling) {
    // Turns of this pair over the original context: many turns stay as they are, few are stretched.
    const double turns = scaling.original_max_position_embeddings * frequency / (2 * std::numbers::pi);
    const double kept =
        std::clamp((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0.0, 1.0);
    return frequency * (kept + (1 - kept) / scaling.factor);
}

}  // namespace

std::vector<int> MlaConfig::unrotated_pairs(int layer, int kv_head, int pairs) const {
    std::vector<bool> rotated(static_cast<std::size_t>(pairs), false);
    if (nope_pairs == NopePairs::unrotated) {
        const auto& heads = rope_pairs.at(static_cast<std::size_t>(layer));
        for (const int pair : heads.at(static_cast<std::size_t>(rope_key_head(kv_head)))) {
            rotated.at(static_cast<std::size_t>(pair)) = true;
        }
    }
    std::vector<int> unrotated;
    for (int pair = 0; pair < pairs; ++pair) {
        if (!rotated[static_cast<std::size_t>(pair)]) unrotated.push_back(pair);
    }
    return unrotated;
}

int ModelConfig::cached_elements(int layer) const {
    return is_mla() ? mla().cached_elements(layer) : 2 * num_key_value_heads * head_dim;
}

std::vector<int> read_token_ids(const core::JsonObject& fields, const char* key, int vocab_size) {
    if (!fields.has(key)) return {};
    const std::int64_t last = vocab_size - 1;
    if (!fields.raw(key).is_array()) return {static_cast<int>(fields.integer(key, 0, last))};
    std::vector<int> ids;
    for (const auto id : fields.integers(key, 0, last)) ids.push_back(static_cast<int>(id));
    return ids;
}

ModelConfig parse_config(const core::Json& json, const std::string& where) {
    const core::JsonObject fields(json, where);
    ModelConfig config;
    config.model_type = read_model_type(fields);
    read_sizes(fields, config);
    read_heads(fields, config);
    refuse_unsupported(fields, config);
    config.rms_norm_eps = read_positive(fields, "rms_norm_eps");
    const auto rope = read_rope(fields);
    config.rope_theta = rope.theta;
    config.rope_scaling = rope.scaling;
    config.tie_word_embeddings = fields.boolean_or("tie_word_embeddings", false);
    config.attention_bias = fields.boolean_or("attention_bias", false);
    config.mlp_bias = fields.boolean_or("mlp_bias", false);
    read_special_tokens(fields, config);
    if (config.model_type == "mha2mla") config.attention = parse_mla(fields, config);
    return config;
}

std::vector<double> rope_frequencies(const ModelConfig& config) {
    std::vector<double> frequencies;
    for (int pair = 0; pair < config.rope_pairs(); ++pair) {
        const double frequency = std::pow(config.rope_theta, -2.0 * pair / config.head_dim);
        frequencies.push_back(config.rope_scaling ? scaled_frequency(frequency, *config.rope_scaling) : frequency);
    }
    return frequencies;
}

}  // namespace mha2mla::checkpoint
