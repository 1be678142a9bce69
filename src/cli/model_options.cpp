#include "cli/model_options.h"

#include <fmt/format.h>
#include <map>

#include "cli/choice.h"
#include "core/error.h"
#include "core/memory.h"

namespace mha2mla::cli {
namespace {

/// The session's progress, and an end at a stop request.
class StoppableProgress : public core::Progress {
public:
    explicit StoppableProgress(Session& session) : session_(session) {}
    void begin(const std::string& task, std::int64_t total) override { session_.progress().begin(task, total); }
    void update(std::int64_t done, const std::string& note) override {
        core::throw_if_stopped(session_.stop());
        session_.progress().update(done, note);
    }
    void end() override { session_.progress().end(); }

private:
    Session& session_;
};

}  // namespace

void add_dtype_option(CLI::App& verb, const std::string& name, core::DType& dtype, const std::string& description) {
    const std::map<std::string, core::DType> types{{"bf16", core::DType::bf16}, {"f32", core::DType::f32}};
    verb.add_option(name, dtype, description + ": bf16 (default) or f32")
        ->transform(choice_of(types))
        ->type_name("TYPE");
}

void add_cache_option(CLI::App& verb, cache::CacheFormat& format) {
    verb.add_option_function<std::string>(
            "--kv-cache",
            [&format](const std::string& name) { format = cache::parse_cache_format(name, "--kv-cache"); },
            "Key/value cache: bf16 (default), f32, int8, int4 or int2 (rotary keys in int8) in groups of 32, int4-g64 "
            "of 64, "
            "int4-c by channel; of a converted model also latent=A,rope=B, of a source keys=A,values=B or kivi4")
        ->type_name("FORMAT");
}

void add_weight_options(CLI::App& verb, runtime::DecoderOptions& options) {
    using kernels::WeightFormat;
    const std::map<std::string, WeightFormat> formats{{"bf16", WeightFormat::bf16},
                                                      {"f32", WeightFormat::f32},
                                                      {"int8", WeightFormat::int8},
                                                      {"int4", WeightFormat::int4}};
    verb.add_option("--weights", options.weights, "Weights in memory: bf16 (default), f32, int8 or int4")
        ->transform(choice_of(formats))
        ->type_name("TYPE");
    verb.add_option("--output-weights", options.output_weights,
                    "Embedding and output matrix in memory; default: int8 with int4 weights, else as --weights")
        ->transform(choice_of(formats))
        ->type_name("TYPE");
}

runtime::WeightFormats weight_formats(const runtime::DecoderOptions& options) {
    return {.layers = options.weights,
            .output = options.output_weights.value_or(runtime::default_output_format(options.weights))};
}

void add_model_options(CLI::App& verb, ModelOptions& options) {
    std::map<std::string, runtime::AttentionForm> forms;
    for (std::size_t i = 0; i < attention_names.size(); ++i) forms[attention_names[i]] = runtime::AttentionForm(i);
    verb.add_option("MODEL", options.path, "Directory or GGUF file")->required();
    add_weight_options(verb, options.decoder);
    verb.add_option("--packed", options.decoder.packed_weights,
                    "File that mha2mla pack wrote; default: the one beside the model, where there is one")
        ->type_name("FILE");
    add_cache_option(verb, options.decoder.kv_cache);
    verb.add_option("--context", options.decoder.context_tokens, "Cache capacity in tokens; 0 = the model's")
        ->check(CLI::Range(0, 1 << 24));
    verb.add_option("--attention", options.decoder.attention, "How an MLA model attends: auto, expanded or absorbed")
        ->transform(choice_of(forms))
        ->type_name("FORM");
}

std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const checkpoint::Checkpoint& model) {
    return tokenizer::load_tokenizer(model.tokenizer_files(), model.path().string());
}

runtime::DecoderOptions for_scoring(runtime::DecoderOptions options) {
    options.as_decoded = true;
    if (options.attention == runtime::AttentionForm::automatic) options.attention = runtime::AttentionForm::expanded;
    return options;
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
    cache::check_applies(options.kv_cache, model.config().is_mla(), "--kv-cache");
    if (options.context_tokens == 0) options.context_tokens = longest;
    if (options.packed_weights.empty()) {
        const auto beside = runtime::packed_weights_path(model, weight_formats(options));
        if (std::filesystem::exists(beside)) options.packed_weights = beside;
    }
    StoppableProgress progress(session);
    auto decoder = std::make_unique<runtime::Decoder>(model, options, session.pool(), progress);
    core::return_freed_memory();  // parsing left megabytes of it between what stays
    return decoder;
}

}  // namespace mha2mla::cli
