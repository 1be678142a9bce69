#include <cstdint>
#include <fmt/format.h>
#include <map>
#include <memory>

#include "checkpoint/checkpoint.h"
#include "cli/kv_cache_report.h"
#include "cli/model_options.h"
#include "cli/session.h"

namespace mha2mla::cli {
namespace {

std::int64_t parameter_count(const checkpoint::Checkpoint& model) {
    std::int64_t count = 0;
    for (const auto& tensor : model.tensors().list()) count += checkpoint::element_count(tensor.shape);
    return count;
}

std::map<std::string, int> stored_types(const checkpoint::Checkpoint& model) {
    std::map<std::string, int> types;
    for (const auto& tensor : model.tensors().list()) ++types[model.tensors().stored_type(tensor.name)];
    return types;
}

core::OrderedJson mla_json(const checkpoint::MlaConfig& mla) {
    return {{"kv_lora_rank", mla.kv_lora_rank},
            {"qk_rope_head_dim", mla.qk_rope_head_dim},
            {"qk_nope_head_dim", mla.qk_nope_head_dim},
            {"v_head_dim", mla.v_head_dim},
            {"latent_groups", mla.latent_groups},
            {"num_rope_key_heads", mla.num_rope_key_heads},
            {"rope_pairs", mla.rope_pairs},
            {"q_nope_factor", mla.q_nope_factor},
            {"q_rope_factor", mla.q_rope_factor},
            {"q_rope_proj", mla.q_rope_proj},
            {"positional_part", mla.positional_part},
            {"sink_tokens", mla.sink_tokens},
            {"source_model_type", mla.source_model_type}};
}

core::OrderedJson describe(const checkpoint::Checkpoint& model, const cache::CacheFormat& format) {
    const auto& config = model.config();
    core::OrderedJson object{{"path", model.path().string()},
                             {"format", model.format()},
                             {"model_type", config.model_type},
                             {"attention", config.is_mla() ? "mla" : "gqa"},
                             {"parameters", parameter_count(model)},
                             {"num_hidden_layers", config.num_hidden_layers},
                             {"hidden_size", config.hidden_size},
                             {"intermediate_size", config.intermediate_size},
                             {"num_attention_heads", config.num_attention_heads},
                             {"num_key_value_heads", config.num_key_value_heads},
                             {"head_dim", config.head_dim},
                             {"vocab_size", config.vocab_size},
                             {"max_position_embeddings", config.max_position_embeddings},
                             {"rope_theta", config.rope_theta},
                             {"rope_scaling", config.rope_scaling ? "llama3" : "none"},
                             {"tie_word_embeddings", config.tie_word_embeddings},
                             {"tensors", stored_types(model)},
                             {"kv_cache", kv_cache_report(config, format)}};
    if (config.is_mla()) object["mla"] = mla_json(config.mla());
    return object;
}

std::string range_text(const std::vector<int>& values) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    return *low == *high ? fmt::to_string(*low) : fmt::format("{} to {}", *low, *high);
}

std::string attention_text(const checkpoint::ModelConfig& config) {
    if (!config.is_mla()) {
        return fmt::format("grouped-query, {} heads over {} key/value heads of {}", config.num_attention_heads,
                           config.num_key_value_heads, config.head_dim);
    }
    const auto& mla = config.mla();
    const auto groups = mla.latent_groups > 1 ? fmt::format(" in {} groups", mla.latent_groups) : "";
    return fmt::format("multi-head latent, {} heads, latent {}{}, {} rotary key heads of {}",
                       config.num_attention_heads, range_text(mla.kv_lora_rank), groups, mla.num_rope_key_heads,
                       range_text(mla.qk_rope_head_dim));
}

std::string to_text(const checkpoint::Checkpoint& model, const core::OrderedJson& object) {
    const auto& config = model.config();
    std::string tensors;
    for (const auto& [type, count] : stored_types(model))
        tensors += fmt::format("{}{} {}", tensors.empty() ? "" : ", ", count, type);
    const auto& cache = object["kv_cache"];
    std::string text = fmt::format("{} ({}, {})\n", model.path().string(), model.format(), config.model_type);
    text += fmt::format("  parameters  {:.1f} million ({})\n", object["parameters"].get<double>() / 1e6, tensors);
    text += fmt::format("  layers      {}, hidden {}, feed-forward {}, vocabulary {}, context {}\n",
                        config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.vocab_size,
                        config.max_position_embeddings);
    text += fmt::format("  attention   {}\n", attention_text(config));
    text += fmt::format("  KV cache    {} bytes a token in {} over all layers", cache["bytes_per_token"].get<int>(),
                        cache["format"].get<std::string>());
    if (config.is_mla()) text += fmt::format(" ({:.2f} % less than its source)", 100 * cache["saved"].get<double>());
    if (config.is_mla() && config.mla().sink_tokens > 0) {
        text += fmt::format(", and {} a text for its first {} tokens", cache["sink_bytes_per_sequence"].get<int>(),
                            config.mla().sink_tokens);
    }
    return text + "\n";
}

}  // namespace

void add_inspect(CLI::App& program, Session& session) {
    struct InspectCommand {
        std::string path;
        cache::CacheFormat format = cache::plain_format(core::DType::bf16);
    };
    auto command = std::make_shared<InspectCommand>();
    CLI::App* verb = add_verb(program, session, "inspect", "Describe a model: sizes, tensors, cache bytes",
                              "  mha2mla inspect model.gguf\n  mha2mla inspect converted/ --kv-cache int4 --json");
    verb->add_option("MODEL", command->path, "Directory or GGUF file")->required();
    add_cache_option(*verb, command->format);
    verb->callback([command, &session] {
        const auto model = checkpoint::Checkpoint::open(command->path);
        const auto object = describe(model, command->format);
        session.print(object, to_text(model, object));
    });
}

}  // namespace mha2mla::cli
