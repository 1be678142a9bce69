#include "convert/documents.h"

#include <fmt/format.h>

namespace mha2mla::convert {
namespace {

core::OrderedJson to_json(const calibrate::TokensRecord& text) {
    return {
        {"origin", text.origin}, {"windows", text.windows}, {"tokens", text.tokens}, {"fingerprint", text.fingerprint}};
}

/// The last named part of the path, without the suffix of a file: a published card says nothing of the machine's
/// layout.
std::string name_of_model(const std::filesystem::path& source) {
    const auto path = std::filesystem::absolute(source).lexically_normal();
    const auto name = path.has_filename() ? path.filename() : path.parent_path().filename();
    return (name.extension() == ".gguf" ? name.stem() : name).string();
}

/// The method and its choices in words.
std::string method_in_words(const ConversionOptions& options) {
    if (options.method == "lsq") {
        return fmt::format("Method `lsq` (calibrated least squares), {}, {} exact tokens",
                           *options.lsq.by_layer ? "sizes by layer" : "equal layers", options.lsq.sinks);
    }
    if (options.method == "transmla") {
        return fmt::format("Method `transmla` (arXiv 2502.07864): {} rotary pairs in one shared key, FreqFold {}",
                           *options.transmla.rope_components, *options.transmla.freqfold);
    }
    const auto groups =
        options.latent_groups > 1 ? fmt::format(", latents in {} groups of heads", options.latent_groups) : "";
    return fmt::format(
        "Method `{}` (arXiv 2502.14837), selection `{}` with {} rotary pairs per KV head,\nfactorization `{}`{}",
        options.method, name_of(options.selection), *options.rope_pairs, name_of(options.factorization), groups);
}

}  // namespace

core::OrderedJson conversion_record(const ConversionReport& report, const ConvertRequest& request) {
    core::OrderedJson record = report.to_json();
    record["calibration"] = report.text ? to_json(*report.text) : core::OrderedJson(nullptr);
    record["version"] = request.version;
    record["command"] = request.command;
    record["dtype"] = core::name_of(request.dtype);
    return record;
}

core::OrderedJson generation_config(const checkpoint::ModelConfig& config) {
    core::OrderedJson json = core::OrderedJson::object();
    if (config.bos_token_id) json["bos_token_id"] = *config.bos_token_id;
    if (!config.eos_token_ids.empty()) json["eos_token_id"] = config.eos_token_ids;
    return json;
}

std::string model_card(const ConversionReport& report, const std::filesystem::path& source) {
    const std::string name = name_of_model(source);
    return fmt::format(
        "---\n"
        "base_model: {4}\n"
        "library_name: mha2mla\n"
        "pipeline_tag: text-generation\n"
        "tags:\n- mha2mla\n- mla\n- multi-head-latent-attention\n"
        "---\n\n"
        "# {0}, converted to multi-head latent attention\n\n"
        "The attention of `{0}` with a latent cache: {1:.2f} % of the source's elements per token\n"
        "({2:.2f} % less). {3},\n"
        "without training: such a model answers worse than its source until it is fine-tuned.\n\n"
        "Run it with mha2mla (DIRECTORY is this one):\n\n"
        "```\n"
        "mha2mla generate DIRECTORY -p \"The capital of France is\"\n"
        "mha2mla eval DIRECTORY --task perplexity --text FILE.txt\n"
        "```\n\n"
        "`conversion.json` holds the plan of every layer, what the factors kept, and the command.\n",
        name, 100 * report.plan.cache_ratio(), 100 * (1 - report.plan.cache_ratio()),
        method_in_words(report.plan.options), core::Json(name).dump());
}

}  // namespace mha2mla::convert
