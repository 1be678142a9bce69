#include "calibrate/statistics_files.h"

#include <climits>
#include <fmt/format.h>

#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_check.h"
#include "checkpoint/writer.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "model/weights.h"

namespace mha2mla::calibrate::files {
namespace {

namespace fs = std::filesystem;
using checkpoint::ModelConfig;
using checkpoint::Shape;
using checkpoint::TensorSpec;

constexpr std::int64_t format_version = 4;  // raised when a moment is defined anew or the files change
constexpr const char* origin_file = "statistics.json";
constexpr const char* tokens_file = "tokens.json";
constexpr std::size_t max_origin_bytes = std::size_t{1} << 20;

struct Part {
    const char* name;
    Shape shape;
    torch::Tensor* tensor;
};

/// The one list of what a layer's statistics consist of.
std::vector<Part> parts_of(AttentionMoments& moments, const ModelConfig& config) {
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t heads = config.num_attention_heads;
    const std::int64_t width = config.head_dim;
    const Shape square{hidden, hidden};
    const Shape pairs{heads, width / 2};
    auto& p = moments.pairs;
    return {{"input_mean", {hidden}, &moments.input_mean},
            {"token_covariance", square, &moments.token_covariance},
            {"value_covariance", square, &moments.value_covariance},
            {"key_covariance", square, &moments.key_covariance},
            {"query_gram", {heads, width, width}, &moments.query_gram},
            {"logit_cost", {heads}, &moments.logit_cost},
            {"pairs.aa", pairs, &p.aa},
            {"pairs.ab", pairs, &p.ab},
            {"pairs.bb", pairs, &p.bb},
            {"pairs.ta", pairs, &p.ta},
            {"pairs.tb", pairs, &p.tb},
            {"pairs.tt", pairs, &p.tt},
            {"inverse_power", {1}, &moments.inverse_power}};
}

core::Json parse(const fs::path& file, std::size_t max_bytes) {
    return core::parse_json(core::read_text(file, max_bytes), file.string());
}

/// Throws where a field of the document is not what is asked for.
template <typename Value>
void check_field(const Value& found, const Value& expected, const char* field, const fs::path& file) {
    if (found == expected) return;
    throw core::Error({.what = fmt::format("the statistics were made for another conversion ('{}' differs)", field),
                       .expected = fmt::format("{}", expected),
                       .got = fmt::format("{}", found),
                       .where = file.string(),
                       .remedy = "name another --statistics to calibrate again"});
}

}  // namespace

void write_origin(const fs::path& directory, const StatisticsOrigin& origin, const data::TextWindows& tokens) {
    const core::OrderedJson json{{"format", format_version},
                                 {"model", origin.model},
                                 {"text",
                                  {{"origin", origin.text.origin},
                                   {"windows", origin.text.windows},
                                   {"tokens", origin.text.tokens},
                                   {"fingerprint", origin.text.fingerprint}}},
                                 {"sinks", origin.options.sinks},
                                 {"queries", origin.options.queries},
                                 {"centred_keys", origin.options.centred_keys}};
    const core::OrderedJson windows{{"windows", tokens.windows}, {"held_out", tokens.held_out}};
    core::write_text(directory / tokens_file, windows.dump() + "\n");
    core::write_text(directory / origin_file, json.dump(2) + "\n");
}

void check_origin(const fs::path& directory, const StatisticsOrigin& expected) {
    const auto file = directory / origin_file;
    const auto json = parse(file, max_origin_bytes);
    const core::JsonObject fields(json, file.string());
    const auto number = [&](const char* field) { return fields.integer(field, 0, INT_MAX); };
    const auto& options = expected.options;
    check_field(number("format"), format_version, "format", file);
    check_field(fields.string("model"), expected.model, "model", file);
    check_field(number("sinks"), std::int64_t{options.sinks}, "sinks", file);
    check_field(number("queries"), std::int64_t{options.queries}, "queries", file);
    check_field(fields.boolean("centred_keys"), options.centred_keys, "centred_keys", file);
}

TokensRecord read_text(const fs::path& directory) {
    const auto file = directory / origin_file;
    const auto json = parse(file, max_origin_bytes);
    const auto text = core::JsonObject(json, file.string()).object("text");
    return {.origin = text.string("origin"),
            .windows = text.integer("windows", 0, INT_MAX),
            .tokens = text.integer("tokens", 0, INT64_MAX),
            .fingerprint = text.string("fingerprint")};
}

data::TextWindows read_tokens(const fs::path& directory, int vocab_size) {
    const auto file = directory / tokens_file;
    const auto json = parse(file, std::size_t{1} << 31);
    const core::JsonObject fields(json, file.string());
    const auto record = read_text(directory);
    data::TextWindows tokens{.windows = data::read_windows(fields, "windows", vocab_size),
                             .origin = record.origin,
                             .held_out = data::read_windows(fields, "held_out", vocab_size)};
    if (record_of(tokens) == record) return tokens;
    throw core::Error({.what = "the tokens are not those that the statistics name", .where = file.string()});
}

fs::path layer_directory(const fs::path& directory, int layer) { return directory / fmt::format("layer-{:03}", layer); }

void write_layer(const fs::path& directory, int layer, const AttentionMoments& moments, const ModelConfig& config) {
    auto copy = moments;
    const auto parts = parts_of(copy, config);
    std::vector<TensorSpec> specs;
    for (const auto& part : parts) specs.push_back({part.name, part.shape});
    checkpoint::CheckpointWriter writer(layer_directory(directory, layer), specs, {.dtype = core::DType::f32});
    for (const auto& part : parts) model::write_tensor(*part.tensor, writer, {part.name, part.shape});
    writer.finish();
}

void check_layer(const fs::path& directory, int layer, const ModelConfig& config) {
    const auto path = layer_directory(directory, layer);
    const checkpoint::SafetensorsSource tensors(path);
    AttentionMoments moments;
    for (const auto& part : parts_of(moments, config)) {
        checkpoint::check_tensor({part.name, part.shape}, tensors, path.string());
    }
}

AttentionMoments read_layer(const fs::path& directory, int layer, const ModelConfig& config) {
    const auto path = layer_directory(directory, layer);
    const checkpoint::SafetensorsSource tensors(path);
    AttentionMoments moments;
    for (const auto& part : parts_of(moments, config)) {
        *part.tensor = model::read_tensor(tensors, {part.name, part.shape}, path.string()).to(torch::kFloat64);
    }
    return moments;
}

}  // namespace mha2mla::calibrate::files
