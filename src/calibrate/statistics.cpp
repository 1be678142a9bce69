#include "calibrate/statistics.h"

#include <cstring>
#include <fmt/format.h>
#include <span>
#include <utility>
#include <vector>

#include "checkpoint/tensor_check.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"

namespace mha2mla::calibrate {
namespace {

namespace fs = std::filesystem;
using checkpoint::ModelConfig;
using checkpoint::Shape;

constexpr std::int64_t format_version = 1;  // raised when a moment is defined anew
constexpr const char* document = "statistics.json";
constexpr std::size_t max_document_bytes = std::size_t{1} << 20;

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
            {"pairs.tt", pairs, &p.tt}};
}

std::string tensor_name(int layer, const char* part) { return fmt::format("layers.{}.{}", layer, part); }

std::vector<checkpoint::TensorSpec> specs_of(const ModelConfig& config) {
    std::vector<checkpoint::TensorSpec> specs;
    AttentionMoments moments;
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        for (const auto& part : parts_of(moments, config)) specs.push_back({tensor_name(layer, part.name), part.shape});
    }
    return specs;
}

core::OrderedJson to_json(const StatisticsOrigin& origin) {
    return {{"format", format_version},
            {"model", origin.model},
            {"text", origin.text},
            {"sinks", origin.options.sinks},
            {"queries", origin.options.queries},
            {"centred_keys", origin.options.centred_keys}};
}

/// Throws where a field of the document is not what this conversion asks for.
template <typename Value>
void check_field(const Value& found, const Value& expected, const char* field, const std::string& where) {
    if (found == expected) return;
    throw core::Error({.what = fmt::format("the statistics were made for another conversion ('{}' differs)", field),
                       .expected = fmt::format("{}", expected),
                       .got = fmt::format("{}", found),
                       .where = where,
                       .remedy = "name another --statistics to calibrate again"});
}

}  // namespace

std::string fingerprint_of(const checkpoint::Checkpoint& model) {
    const auto& config = model.config();
    std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
    const auto add = [&hash](std::uint64_t value) {
        for (int byte = 0; byte < 8; ++byte) hash = (hash ^ ((value >> (8 * byte)) & 0xffU)) * 0x100000001b3U;
    };
    for (const int size : {config.num_hidden_layers, config.hidden_size, config.num_attention_heads,
                           config.num_key_value_heads, config.head_dim}) {
        add(static_cast<std::uint64_t>(size));
    }
    const Shape shape{std::int64_t{config.num_attention_heads} * config.head_dim, config.hidden_size};
    std::vector<float> row(static_cast<std::size_t>(config.hidden_size));
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
        model.read_rows(checkpoint::layer_tensor(layer, "self_attn.q_proj.weight"), shape, 0, 1, row);
        for (const float value : row) {
            std::uint32_t bits = 0;
            std::memcpy(&bits, &value, sizeof bits);
            add(bits);
        }
    }
    return fmt::format("{:016x}", hash);
}

StatisticsWriter::StatisticsWriter(const fs::path& target, const ModelConfig& config, const StatisticsOrigin& origin)
    : config_(config), writer_(target, specs_of(config), {.dtype = core::DType::f32}) {
    writer_.add_file(document, to_json(origin).dump(2) + "\n");
}

void StatisticsWriter::add(int layer, const AttentionMoments& moments) {
    auto copy = moments;
    for (const auto& part : parts_of(copy, config_)) {
        const auto values = part.tensor->to(torch::kFloat32).contiguous();
        core::invariant(values.sizes() == torch::IntArrayRef(part.shape), "moments have the model's shapes");
        writer_.write(tensor_name(layer, part.name),
                      {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    }
}

Statistics::Statistics(const fs::path& path, const checkpoint::Checkpoint& model, const MomentOptions& options)
    : config_(model.config()), tensors_(path), where_(path.string()) {
    const auto file = (path / document).string();
    const auto json = core::parse_json(core::read_text(file, max_document_bytes), file);
    const core::JsonObject fields(json, file);
    check_field(fields.integer("format", 0, INT32_MAX), format_version, "format", file);
    check_field(fields.string("model"), fingerprint_of(model), "model", file);
    check_field(fields.integer("sinks", 0, INT32_MAX), std::int64_t{options.sinks}, "sinks", file);
    check_field(fields.integer("queries", 0, INT32_MAX), std::int64_t{options.queries}, "queries", file);
    check_field(fields.boolean("centred_keys"), options.centred_keys, "centred_keys", file);
    text_ = fields.string("text");
    for (const auto& spec : specs_of(config_)) checkpoint::check_tensor(spec, tensors_, where_);
}

AttentionMoments Statistics::layer(int layer) const {
    AttentionMoments moments;
    for (const auto& part : parts_of(moments, config_)) {
        auto values = torch::empty(part.shape, torch::kFloat32);
        tensors_.read_rows(tensor_name(layer, part.name), 0, part.shape.front(),
                           {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
        *part.tensor = values.to(torch::kFloat64);
    }
    return moments;
}

}  // namespace mha2mla::calibrate
