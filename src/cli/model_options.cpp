#include "cli/model_options.h"

#include <fmt/format.h>
#include <map>

#include "core/error.h"

namespace mha2mla::cli {

void add_dtype_option(CLI::App& verb, const std::string& name, core::DType& dtype, const std::string& description) {
    const std::map<std::string, core::DType> types{{"bf16", core::DType::bf16}, {"f32", core::DType::f32}};
    verb.add_option(name, dtype, description + ": bf16 (default) or f32")
        ->transform(CLI::Transformer(types))
        ->type_name("TYPE");
}

void add_cache_option(CLI::App& verb, cache::CacheFormat& format) {
    verb.add_option_function<std::string>(
            "--kv-cache",
            [&format](const std::string& name) { format = cache::parse_cache_format(name, "--kv-cache"); },
            "Key/value cache: bf16 (default), f32, int8, int4 or int2 (rotary keys in int8), latent=int4,rope=int8, or "
            "kivi4 (keys by channel)")
        ->type_name("FORMAT");
}

void add_model_options(CLI::App& verb, ModelOptions& options) {
    const std::map<std::string, runtime::AttentionForm> forms{{"auto", runtime::AttentionForm::automatic},
                                                              {"expanded", runtime::AttentionForm::expanded},
                                                              {"absorbed", runtime::AttentionForm::absorbed}};
    verb.add_option("MODEL", options.path, "Directory or GGUF file")->required();
    add_dtype_option(verb, "--weights", options.decoder.weights, "Weights in memory");
    add_cache_option(verb, options.decoder.kv_cache);
    verb.add_option("--context", options.decoder.context_tokens, "Cache capacity in tokens; 0 = the model's")
        ->check(CLI::Range(0, 1 << 24));
    verb.add_option("--attention", options.decoder.attention, "How an MLA model attends: auto, expanded or absorbed")
        ->transform(CLI::Transformer(forms))
        ->type_name("FORM");
}

std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const checkpoint::Checkpoint& model) {
    return tokenizer::load_tokenizer(model.tokenizer_files(), model.path().string());
}

std::unique_ptr<runtime::Decoder> load_decoder(const checkpoint::Checkpoint& model, runtime::DecoderOptions options,
                                               Session& session, ContextLimit limit) {
    const int longest = model.config().max_position_embeddings;
    if (limit == ContextLimit::model && options.context_tokens > longest) {
        throw core::Error({.what = "the model was not made for so long a context",
                           .expected = fmt::format("at most {}", longest),
                           .got = fmt::to_string(options.context_tokens),
                           .where = "--context"});
    }
    if (options.context_tokens == 0) options.context_tokens = longest;
    return std::make_unique<runtime::Decoder>(model, options, session.pool(), session.progress());
}

}  // namespace mha2mla::cli
