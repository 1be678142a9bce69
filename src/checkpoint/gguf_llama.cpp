#include "checkpoint/gguf_llama.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fmt/format.h>

#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

constexpr const char* embedding_tensor = "token_embd.weight";
constexpr std::int64_t largest = INT32_MAX;  // parse_config holds the values to tighter limits

struct NamePair {
    std::string_view gguf;
    std::string_view hugging_face;
    bool interleaved = false;
};

constexpr std::array model_tensors{NamePair{"token_embd", "model.embed_tokens"}, NamePair{"output_norm", "model.norm"},
                                   NamePair{"output", "lm_head"}};

constexpr std::array layer_tensors{
    NamePair{"attn_norm", "input_layernorm"},     NamePair{"attn_q", "self_attn.q_proj", true},
    NamePair{"attn_k", "self_attn.k_proj", true}, NamePair{"attn_v", "self_attn.v_proj"},
    NamePair{"attn_output", "self_attn.o_proj"},  NamePair{"ffn_norm", "post_attention_layernorm"},
    NamePair{"ffn_gate", "mlp.gate_proj"},        NamePair{"ffn_up", "mlp.up_proj"},
    NamePair{"ffn_down", "mlp.down_proj"}};

/// Keys below "llama." that are read, or that cannot change what the model computes.
constexpr std::array known_keys{"block_count",
                                "context_length",
                                "embedding_length",
                                "feed_forward_length",
                                "vocab_size",
                                "attention.head_count",
                                "attention.head_count_kv",
                                "attention.key_length",
                                "attention.value_length",
                                "attention.layer_norm_rms_epsilon",
                                "attention.sliding_window",
                                "rope.dimension_count",
                                "rope.freq_base",
                                "rope.scaling.type",
                                "rope.scaling.finetuned",
                                "expert_count",
                                "expert_used_count",
                                "tensor_data_layout"};

/// "blk.7.attn_q" -> 7, "attn_q".
std::optional<std::pair<int, std::string_view>> split_layer(std::string_view name) {
    constexpr std::string_view prefix = "blk.";
    if (!name.starts_with(prefix)) return std::nullopt;
    name.remove_prefix(prefix.size());
    int layer = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
    const auto digits = static_cast<std::size_t>(end - name.data());
    if (error != std::errc() || layer < 0 || digits >= name.size() || name[digits] != '.') return std::nullopt;
    if (name.substr(0, digits) != fmt::format("{}", layer)) return std::nullopt;  // "007": two names for one tensor
    return std::pair(layer, name.substr(digits + 1));
}

template <typename Table>
const NamePair* look_up(const Table& table, std::string_view gguf) {
    const auto found = std::find_if(table.begin(), table.end(), [&](const auto& pair) { return pair.gguf == gguf; });
    return found == table.end() ? nullptr : &*found;
}

void refuse_unknown_keys(const GgufMetadata& metadata) {
    constexpr std::string_view prefix = "llama.";
    for (const auto key : metadata.keys()) {
        if (!key.starts_with(prefix)) continue;
        if (std::find(known_keys.begin(), known_keys.end(), key.substr(prefix.size())) != known_keys.end()) continue;
        throw core::Error(
            {.what = fmt::format("metadata key {} is not known and may change what the model computes", quoted(key)),
             .where = metadata.where()});
    }
}

void check_equal(const GgufMetadata& metadata, const char* key, std::int64_t expected, const char* reason) {
    if (!metadata.has(key)) return;
    const auto got = metadata.integer(key, 0, UINT32_MAX);
    if (got != expected) metadata.fail(key, fmt::format("{} ({})", expected, reason), fmt::format("{}", got));
}

void refuse_variants(const GgufMetadata& metadata, const ModelConfig& config) {
    check_equal(metadata, "llama.expert_count", 0, "mixtures of experts are not supported");
    check_equal(metadata, "llama.expert_used_count", 0, "mixtures of experts are not supported");
    check_equal(metadata, "llama.vocab_size", config.vocab_size, "the rows of token_embd.weight");
    check_equal(metadata, "llama.attention.value_length", config.head_dim, "values are as wide as keys");
    check_equal(metadata, "llama.rope.dimension_count", config.head_dim, "RoPE turns whole heads");
    constexpr const char* scaling = "llama.rope.scaling.type";
    if (metadata.has(scaling) && metadata.string(scaling) != "none") {
        metadata.fail(scaling, "'none'", quoted(metadata.string(scaling)));
    }
}

std::int64_t read_vocab_size(const GgufFile& file, const std::optional<GgufVocabulary>& vocabulary) {
    const auto* embedding = file.find(embedding_tensor);
    if (embedding == nullptr) {
        throw core::Error(
            {.what = fmt::format("tensor '{}' is missing", embedding_tensor), .where = file.metadata.where()});
    }
    const auto rows = embedding->shape[0];
    if (vocabulary && static_cast<std::int64_t>(vocabulary->tokens.size()) != rows) {
        file.metadata.fail("tokenizer.ggml.tokens", fmt::format("{} tokens, the rows of {}", rows, embedding_tensor),
                           fmt::format("{}", vocabulary->tokens.size()));
    }
    return rows;
}

/// The fields of config.json, so that one place holds them to limits whatever the container.
core::Json config_fields(const GgufFile& file, const std::optional<GgufVocabulary>& vocabulary) {
    const auto& metadata = file.metadata;
    const auto count = [&](const char* key) { return metadata.integer(key, 1, largest); };
    const auto heads = count("llama.attention.head_count");
    core::Json fields{{"model_type", "llama"},
                      {"vocab_size", read_vocab_size(file, vocabulary)},
                      {"hidden_size", count("llama.embedding_length")},
                      {"intermediate_size", count("llama.feed_forward_length")},
                      {"num_hidden_layers", count("llama.block_count")},
                      {"num_attention_heads", heads},
                      {"num_key_value_heads", metadata.integer_or("llama.attention.head_count_kv", heads, 1, largest)},
                      {"max_position_embeddings", count("llama.context_length")},
                      {"rms_norm_eps", metadata.number("llama.attention.layer_norm_rms_epsilon")},
                      // Absent in the first files of Llama and Llama-2; llama.cpp's default is theirs.
                      {"rope_theta", metadata.number_or("llama.rope.freq_base", 10000.0)},
                      {"tie_word_embeddings", file.find("output.weight") == nullptr},
                      {"attention_bias", file.find("blk.0.attn_q.bias") != nullptr},
                      {"mlp_bias", file.find("blk.0.ffn_gate.bias") != nullptr}};
    if (metadata.has("llama.attention.key_length")) fields["head_dim"] = count("llama.attention.key_length");
    if (metadata.has("llama.attention.sliding_window")) {
        fields["sliding_window"] = metadata.integer("llama.attention.sliding_window", 0, largest);
    }
    if (vocabulary && vocabulary->bos) fields["bos_token_id"] = *vocabulary->bos;
    if (vocabulary) fields["eos_token_id"] = vocabulary->end_ids();
    return fields;
}

/// How much slower each pair turns than without scaling: what llama.cpp stores. [head_dim / 2]
std::vector<double> frequency_factors(ModelConfig config, const Llama3RopeScaling& scaling) {
    config.rope_scaling.reset();
    auto factors = rope_frequencies(config);
    config.rope_scaling = scaling;
    const auto scaled = rope_frequencies(config);
    for (std::size_t pair = 0; pair < factors.size(); ++pair) factors[pair] /= scaled[pair];
    return factors;
}

bool nearly_equal(const std::vector<float>& stored, const std::vector<double>& exact) {
    constexpr double tolerance = 1e-4;  // the converter computes in float
    return std::equal(stored.begin(), stored.end(), exact.begin(), exact.end(),
                      [](float a, double b) { return std::abs(a - b) <= tolerance * b; });
}

/// The published scalings of Llama-3.1 (factor 8) and 3.2 (factor 32), recognised by their factors.
std::optional<Llama3RopeScaling> read_rope_scaling(const GgufFile& file, const ModelConfig& config) {
    const auto* tensor = file.find(rope_factors_tensor);
    if (tensor == nullptr) return std::nullopt;
    const std::size_t pairs = static_cast<std::size_t>(config.rope_pairs());
    if (tensor->shape == Shape{config.rope_pairs()} && tensor->type->elements == 1) {
        std::vector<float> factors(pairs);
        tensor->type->dequantize(tensor->data.data(), config.rope_pairs(), factors.data());
        if (nearly_equal(factors, std::vector<double>(pairs, 1.0))) return std::nullopt;
        for (const double factor : {8.0, 32.0}) {
            const Llama3RopeScaling scaling{factor, 1.0, 4.0, 8192};
            if (nearly_equal(factors, frequency_factors(config, scaling))) return scaling;
        }
    }
    throw core::Error({.what = fmt::format("tensor '{}' is no known RoPE scaling", rope_factors_tensor),
                       .expected = fmt::format("the {} factors of Llama-3.1 or Llama-3.2", pairs),
                       .where = file.metadata.where()});
}

}  // namespace

void check_kind(const GgufMetadata& metadata) {
    const auto parts = metadata.integer_or("split.count", 1, 0, UINT16_MAX);
    if (parts > 1) {
        throw core::Error({.what = fmt::format("is one of {} parts of a model", parts),
                           .where = metadata.where(),
                           .remedy = "join them first: llama-gguf-split --merge"});
    }
    constexpr const char* key = "general.architecture";
    const auto architecture = metadata.string(key);
    if (architecture == "llama") return;
    throw core::Error({.what = fmt::format("architecture {} is not supported", quoted(architecture)),
                       .expected = "'llama'",
                       .where = metadata.where()});
}

ModelConfig llama_config(const GgufFile& file, const std::optional<GgufVocabulary>& vocabulary) {
    const auto& metadata = file.metadata;
    refuse_unknown_keys(metadata);
    auto config = parse_config(config_fields(file, vocabulary), metadata.where() + ", metadata as config.json");
    refuse_variants(metadata, config);
    config.rope_scaling = read_rope_scaling(file, config);
    return config;
}

std::optional<LlamaTensorName> llama_tensor_name(std::string_view gguf_name) {
    const auto dot = gguf_name.rfind('.');
    if (dot == std::string_view::npos) return std::nullopt;
    const auto suffix = gguf_name.substr(dot);
    if (suffix != ".weight" && suffix != ".bias") return std::nullopt;
    const auto stem = gguf_name.substr(0, dot);
    if (const auto* pair = look_up(model_tensors, stem))
        return LlamaTensorName{std::string(pair->hugging_face).append(suffix)};
    const auto layer = split_layer(stem);
    if (!layer) return std::nullopt;
    const auto* pair = look_up(layer_tensors, layer->second);
    if (pair == nullptr) return std::nullopt;
    return LlamaTensorName{layer_tensor(layer->first, std::string(pair->hugging_face).append(suffix)),
                           pair->interleaved};
}

}  // namespace mha2mla::checkpoint
