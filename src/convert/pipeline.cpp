#include "convert/pipeline.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <fmt/format.h>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "calibrate/attention_moments.h"
#include "calibrate/calibration.h"
#include "calibrate/pair_norms.h"
#include "calibrate/statistics.h"
#include "checkpoint/writer.h"
#include "convert/documents.h"
#include "convert/freqfold.h"
#include "convert/select.h"
#include "core/error.h"
#include "core/memory.h"
#include "model/options.h"

namespace mha2mla::convert {
namespace {

using checkpoint::Checkpoint;
using checkpoint::TensorSpec;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Copies a tensor some rows at a time: embeddings can be larger than a layer.
void copy_tensor(const Checkpoint& source, checkpoint::CheckpointWriter& writer, const TensorSpec& spec) {
    constexpr std::int64_t values_at_a_time = std::int64_t{1} << 22;
    const std::int64_t rows = spec.shape.front();
    const std::int64_t width = std::max<std::int64_t>(1, checkpoint::element_count(spec.shape) / rows);
    const std::int64_t step = std::clamp<std::int64_t>(values_at_a_time / width, 1, rows);
    std::vector<float> values(static_cast<std::size_t>(step * width));
    for (std::int64_t row = 0; row < rows; row += step) {
        const std::int64_t count = std::min(step, rows - row);
        const std::span<float> part(values.data(), static_cast<std::size_t>(count * width));
        source.read_rows(spec.name, spec.shape, row, count, part);
        writer.write_rows(spec.name, row, part);
    }
}

void write_tensor(const torch::Tensor& tensor, checkpoint::CheckpointWriter& writer, const TensorSpec& spec) {
    const auto values = tensor.to(torch::kCPU, torch::kFloat32).contiguous();
    core::invariant(values.sizes() == torch::IntArrayRef(spec.shape), "a method returns the planned shapes");
    writer.write(spec.name, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
}

/// What one conversion holds from its first layer to its last.
class Conversion {
public:
    Conversion(const Checkpoint& source, const Plan& plan, const ConvertRequest& request)
        : source_(source),
          device_(model::parse_device(request.device)),
          method_(find_method(plan.options.method)),
          report_{.plan = plan, .layers = {}, .text = {}, .layer_seconds = {}},
          writer_(request.target, checkpoint::expected_tensors(plan.target),
                  checkpoint::WriterOptions{.dtype = request.dtype, .replace = request.replace}) {}

    /// Opens saved statistics, or prepares to measure.
    void calibrate_with(const CalibrationTokens& calibration, const ConvertRequest& request);
    calibrate::AttentionMoments moments_of(int layer, const std::stop_token& stop);
    void choose_freqfold(const std::vector<std::vector<int>>& held_out, core::Progress& progress,
                         const std::stop_token& stop);
    LayerFidelity convert_layer(int layer, const std::stop_token& stop);
    void copy_shared_tensors(const std::stop_token& stop);
    void write_documents(const ConvertRequest& request);
    ConversionReport& report() { return report_; }
    void finish() {
        writer_.finish();
        if (calibration_) calibration_->finish();
    }

private:
    const Checkpoint& source_;
    torch::Device device_;
    const Method& method_;
    ConversionReport report_;
    checkpoint::CheckpointWriter writer_;
    std::optional<calibrate::LayerWalk> walk_;  // of 2-norm selection
    std::optional<calibrate::Statistics> statistics_;
    std::optional<calibrate::Calibration> calibration_;
};

calibrate::MomentOptions moment_options(const ConversionOptions& options) {
    return {.sinks = options.lsq.sinks, .centred_keys = options.lsq.mean_key};
}

/// The method asks for statistics that are nowhere on disk: text has to walk through the source.
bool measures(const ConversionOptions& options, const ConvertRequest& request) {
    if (!find_method(options.method).needs_moments) return options.selection == Selection::two_norm;
    return request.statistics.empty() || !std::filesystem::exists(request.statistics);
}

void Conversion::calibrate_with(const CalibrationTokens& calibration, const ConvertRequest& request) {
    const auto moments = moment_options(report_.plan.options);
    if (!measures(report_.plan.options, request)) {
        if (!method_.needs_moments) return;
        statistics_.emplace(request.statistics, source_, moments);
        report_.text = statistics_->text();
        return;
    }
    report_.text = calibrate::record_of(calibration);
    const calibrate::RestOptions rest{.memory_bytes = request.memory_bytes,
                                      .spill_directory = std::filesystem::absolute(request.target).parent_path()};
    if (method_.needs_moments) {
        calibration_.emplace(
            source_, calibration,
            calibrate::CalibrationOptions{
                .moments = moments, .device = device_, .rest = rest, .statistics = request.statistics});
    } else {
        calibrate::check_windows(calibration, 1);
        model::ModelOptions walk;
        walk.device = device_;
        walk_.emplace(source_, calibration.windows, walk, rest);
    }
}

calibrate::AttentionMoments Conversion::moments_of(int layer, const std::stop_token& stop) {
    return statistics_ ? statistics_->layer(layer) : calibration_->next(stop);
}

/// Uses up the calibration: it has to be begun again.
void Conversion::choose_freqfold(const std::vector<std::vector<int>>& held_out, core::Progress& progress,
                                 const std::stop_token& stop) {
    const auto moments = [&](int layer) { return moments_of(layer, stop); };
    const FreqfoldTrial trial{source_, report_.plan, held_out, moments, device_};
    report_.plan.options.transmla.freqfold = best_freqfold(trial, progress, stop);
    if (calibration_) calibration_->finish();
    calibration_.reset();
}

LayerFidelity Conversion::convert_layer(int layer, const std::stop_token& stop) {
    auto& plan = report_.plan;
    auto& rope_pairs =
        std::get<checkpoint::MlaConfig>(plan.target.attention).rope_pairs[static_cast<std::size_t>(layer)];
    std::optional<calibrate::AttentionMoments> moments;
    if (method_.needs_moments) {
        moments = moments_of(layer, stop);
    } else if (walk_) {
        rope_pairs = keep_best(two_norm_ranks(calibrate::measure_pair_norms(*walk_, stop)), *plan.options.rope_pairs);
    }
    const auto source = load_attention(source_, layer, device_);
    const auto converted = method_.convert({source, plan, layer, moments ? &*moments : nullptr});
    if (!converted.rope_pairs.empty()) rope_pairs = converted.rope_pairs;
    std::size_t written = 0;
    for (const auto& spec : checkpoint::expected_layer_tensors(plan.target, layer)) {
        const auto found = converted.tensors.find(spec.name.substr(checkpoint::layer_tensor(layer, "").size()));
        if (found == converted.tensors.end()) {
            copy_tensor(source_, writer_, spec);
        } else {
            write_tensor(found->second, writer_, spec);
            ++written;
        }
    }
    core::invariant(written == converted.tensors.size(), "every converted tensor belongs to the planned layer");
    report_.layers.push_back(converted.fidelity);
    return converted.fidelity;
}

void Conversion::copy_shared_tensors(const std::stop_token& stop) {
    std::set<std::string> in_layers;
    for (int layer = 0; layer < source_.config().num_hidden_layers; ++layer) {
        for (const auto& spec : checkpoint::expected_layer_tensors(report_.plan.target, layer)) {
            in_layers.insert(spec.name);
        }
    }
    for (const auto& spec : checkpoint::expected_tensors(report_.plan.target)) {
        core::throw_if_stopped(stop);
        if (!in_layers.contains(spec.name)) copy_tensor(source_, writer_, spec);
    }
}

void Conversion::write_documents(const ConvertRequest& request) {
    auto files = source_.tokenizer_files();
    const auto& target = report_.plan.target;
    files.try_emplace("generation_config.json", generation_config(target).dump(2) + "\n");
    files["config.json"] = checkpoint::config_to_json(target, source_.source_config()).dump(2) + "\n";
    files["conversion.json"] = conversion_record(report_, request).dump(2) + "\n";
    files["README.md"] = model_card(report_, source_.path());
    for (const auto& [name, contents] : files) writer_.add_file(name, contents);
}

core::OrderedJson to_json(const LayerFidelity& fidelity) {
    return {{"key_energy", fidelity.key_energy}, {"value_energy", fidelity.value_energy}};
}

}  // namespace

core::OrderedJson ConversionReport::to_json() const {
    core::OrderedJson json;
    json["plan"] = plan_to_json(plan);
    auto& fidelity = json["fidelity"] = core::OrderedJson::array();
    for (const auto& layer : layers) fidelity.push_back(convert::to_json(layer));
    json["seconds"] = seconds;
    json["layer_seconds"] = layer_seconds;
    json["peak_memory_bytes"] = peak_memory_bytes;
    return json;
}

void check_request(const ConvertRequest& request) {
    model::parse_device(request.device);
    checkpoint::check_target(request.target, request.replace);
    if (request.statistics.empty() || std::filesystem::exists(request.statistics)) return;
    checkpoint::check_target(request.statistics, false);
}

bool needs_calibration(const ConversionOptions& options, const ConvertRequest& request) {
    return measures(options, request) || chooses_freqfold(options);
}

ConversionReport convert(const Checkpoint& source, const Plan& plan, const CalibrationTokens& calibration,
                         const ConvertRequest& request, core::Progress& progress, const std::stop_token& stop) {
    const auto started = Clock::now();
    const torch::NoGradGuard no_gradients;
    Conversion conversion(source, plan, request);
    auto used = calibration;
    if (chooses_freqfold(plan.options)) {
        const auto held_out = hold_out(used.windows);
        if (!measures(plan.options, request)) used.windows.clear();
        conversion.calibrate_with(used, request);
        conversion.choose_freqfold(held_out, progress, stop);
    }
    conversion.calibrate_with(used, request);
    conversion.copy_shared_tensors(stop);
    progress.begin("converting", plan.target.num_hidden_layers);
    for (int layer = 0; layer < plan.target.num_hidden_layers; ++layer) {
        core::throw_if_stopped(stop);
        const auto layer_started = Clock::now();
        const LayerFidelity kept = conversion.convert_layer(layer, stop);
        conversion.report().layer_seconds.push_back(seconds_since(layer_started));
        progress.update(layer + 1, fmt::format("layer {}: keeps {:.0f} % of keys, {:.0f} % of values", layer,
                                               100 * kept.key_energy, 100 * kept.value_energy));
    }
    progress.end();
    core::throw_if_stopped(stop);
    conversion.report().seconds = seconds_since(started);
    conversion.report().peak_memory_bytes = core::peak_memory_bytes();
    conversion.write_documents(request);
    conversion.finish();
    return conversion.report();
}

}  // namespace mha2mla::convert
