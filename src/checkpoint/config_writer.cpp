#include <string>

#include "checkpoint/mla_config.h"
#include "checkpoint/model_config.h"

namespace mha2mla::checkpoint {
namespace {

const char* architecture_of(const std::string& model_type) {
    if (model_type == "mha2mla") return "Mha2MlaForCausalLM";
    return model_type == "mistral" ? "MistralForCausalLM" : "LlamaForCausalLM";
}

core::OrderedJson rope_scaling_to_json(const Llama3RopeScaling& scaling) {
    core::OrderedJson json;
    json["rope_type"] = "llama3";
    json["factor"] = scaling.factor;
    json["low_freq_factor"] = scaling.low_freq_factor;
    json["high_freq_factor"] = scaling.high_freq_factor;
    json["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
    return json;
}

/// In the spelling of the source: `rope_parameters` (transformers 5), else `rope_theta` and `rope_scaling`, which every
/// version reads.
void set_rope(core::OrderedJson& json, const ModelConfig& config) {
    core::OrderedJson scaling;
    if (config.rope_scaling) scaling = rope_scaling_to_json(*config.rope_scaling);
    if (!json.contains("rope_parameters")) {
        json["rope_theta"] = config.rope_theta;
        json["rope_scaling"] = scaling;
        return;
    }
    if (scaling.is_null()) scaling["rope_type"] = "default";
    scaling["rope_theta"] = config.rope_theta;
    json["rope_parameters"] = scaling;
    json.erase("rope_theta");
    json.erase("rope_scaling");
}

void set_special_tokens(core::OrderedJson& json, const ModelConfig& config) {
    json["bos_token_id"] = config.bos_token_id ? core::OrderedJson(*config.bos_token_id) : core::OrderedJson();
    const auto& eos = config.eos_token_ids;
    if (eos.size() == 1) {
        json["eos_token_id"] = eos.front();
    } else {
        json["eos_token_id"] = eos.empty() ? core::OrderedJson() : core::OrderedJson(eos);
    }
}

void set_sizes(core::OrderedJson& json, const ModelConfig& config) {
    json["vocab_size"] = config.vocab_size;
    json["hidden_size"] = config.hidden_size;
    json["intermediate_size"] = config.intermediate_size;
    json["num_hidden_layers"] = config.num_hidden_layers;
    json["num_attention_heads"] = config.num_attention_heads;
    json["num_key_value_heads"] = config.num_key_value_heads;
    json["head_dim"] = config.head_dim;
    json["max_position_embeddings"] = config.max_position_embeddings;
}

}  // namespace

core::OrderedJson config_to_json(const ModelConfig& config, const core::Json& source) {
    core::OrderedJson json = core::OrderedJson::object();
    if (source.is_object()) json = core::OrderedJson(source);
    json["model_type"] = config.model_type;
    json["architectures"] = {architecture_of(config.model_type)};
    set_sizes(json, config);
    json["hidden_act"] = "silu";
    json["rms_norm_eps"] = config.rms_norm_eps;
    set_rope(json, config);
    json["tie_word_embeddings"] = config.tie_word_embeddings;
    json["attention_bias"] = config.attention_bias;
    json["mlp_bias"] = config.mlp_bias;
    set_special_tokens(json, config);
    json.erase("mla");
    if (config.is_mla()) {
        json.erase("auto_map");  // the source's modelling file does not describe this model
        json["mla"] = mla_to_json(config.mla());
    }
    return json;
}

}  // namespace mha2mla::checkpoint
