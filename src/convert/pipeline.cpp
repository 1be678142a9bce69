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
#include "calibrate/pair_norms.h"
#include "calibrate/statistics.h"
#include "checkpoint/copy.h"
#include "checkpoint/writer.h"
#include "convert/documents.h"
#include "convert/latent_rotation.h"
#include "convert/measurements.h"
#include "convert/refit.h"
#include "convert/select.h"
#include "convert/trial.h"
#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"
#include "model/options.h"
#include "model/weights.h"

namespace mha2mla::convert {
namespace {

using checkpoint::Checkpoint;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Who watches a conversion, and who may stop it.
struct Watch {
    core::Progress& progress;
    const std::stop_token& stop;
};

/// What one conversion holds from its first layer to its last.
class Conversion {
public:
    Conversion(const Checkpoint& source, const Plan& plan, const ConvertRequest& request)
        : source_(source),
          device_(model::parse_device(request.device)),
          method_(find_method(plan.options.method)),
          report_{.plan = plan, .layers = {}, .text = {}, .trial = {}, .calibration_seconds = {}, .layer_seconds = {}},
          writer_(request.target, checkpoint::expected_tensors(plan.target),
                  checkpoint::WriterOptions{.dtype = request.dtype, .replace = request.replace}) {}

    void use(const calibrate::Statistics& statistics, const ConvertRequest& request);
    /// For 2-norm selection.
    void walk(const data::TextWindows& text, const ConvertRequest& request);
    LayerFidelity convert_layer(int layer, const std::stop_token& stop);
    void copy_shared_tensors(const std::stop_token& stop);
    void write_documents(const ConvertRequest& request);
    ConversionReport& report() { return report_; }
    void finish() { writer_.finish(); }

private:
    const Checkpoint& source_;
    torch::Device device_;
    const Method& method_;
    ConversionReport report_;
    checkpoint::CheckpointWriter writer_;
    std::optional<calibrate::LayerWalk> walk_;
    const calibrate::Statistics* statistics_ = nullptr;
    std::optional<OutputRefit> refit_;
};

void Conversion::use(const calibrate::Statistics& statistics, const ConvertRequest& request) {
    statistics_ = &statistics;
    report_.text = statistics.text();
    const auto& options = report_.plan.options;
    if (options.method != "lsq" || !options.lsq.refit_output) return;
    auto rest = rest_options(request);
    rest.memory_bytes /= 2;  // of the source and of the converted model
    refit_.emplace(source_, statistics.tokens().windows, device_, rest);
}

void Conversion::walk(const data::TextWindows& text, const ConvertRequest& request) {
    calibrate::check_windows(text, 1);
    report_.text = calibrate::record_of(text);
    model::ModelOptions options;
    options.device = device_;
    walk_.emplace(source_, text.windows, options, rest_options(request));
}

LayerFidelity Conversion::convert_layer(int layer, const std::stop_token& stop) {
    auto& plan = report_.plan;
    std::optional<calibrate::AttentionMoments> moments;
    if (statistics_ != nullptr) moments = statistics_->layer(layer);
    if (walk_) {
        const auto ranks = two_norm_ranks(calibrate::measure_pair_norms(*walk_, stop));
        set_rope_pairs(plan, layer, keep_best(ranks, *plan.options.rope_pairs));
    }
    const auto source = load_attention(source_, layer, device_);
    auto converted = method_.convert({source, plan, layer, moments ? &*moments : nullptr});
    if (!converted.rope_pairs.empty()) set_rope_pairs(plan, layer, converted.rope_pairs);
    if (refit_) refit_->apply(plan.target, layer, converted, stop);
    if (const auto seed = plan.options.latent_rotation) {
        const auto l = static_cast<std::size_t>(layer);
        const auto& mla = plan.target.mla();
        rotate_latent(converted, mla.kv_lora_rank.at(l), mla.latent_groups, *seed + l);
    }
    std::size_t written = 0;
    for (const auto& spec : checkpoint::expected_layer_tensors(plan.target, layer)) {
        const auto found = converted.tensors.find(spec.name.substr(checkpoint::layer_tensor(layer, "").size()));
        if (found == converted.tensors.end()) {
            checkpoint::copy_tensor(source_, writer_, spec);
        } else {
            model::write_tensor(found->second, writer_, spec);
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
        if (!in_layers.contains(spec.name)) checkpoint::copy_tensor(source_, writer_, spec);
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

bool leaves_choices(const Plan& plan) {
    const auto& method = find_method(plan.options.method);
    return method.leaves_choices != nullptr && method.leaves_choices(plan);
}

/// The plan itself, or what its method makes of it by the statistics.
Choice settle(const Plan& plan, const Checkpoint& source, const calibrate::Statistics& statistics,
              const ConvertRequest& request, Watch watch) {
    const auto& method = find_method(plan.options.method);
    if (!leaves_choices(plan)) return {plan, std::nullopt};
    check_calibration_size(plan, std::ssize(statistics.tokens().held_out) + 1);
    const Evidence evidence{.source = source,
                            .moments = [&](int layer) { return statistics.layer(layer); },
                            .held_out = statistics.tokens().held_out,
                            .device = model::parse_device(request.device),
                            .rest = rest_options(request)};
    return choose(method.alternatives(plan, evidence, watch.progress, watch.stop), evidence, watch.progress,
                  watch.stop);
}

void convert_layers(Conversion& conversion, Watch watch) {
    const int layers = conversion.report().plan.target.num_hidden_layers;
    watch.progress.begin("converting", layers);
    for (int layer = 0; layer < layers; ++layer) {
        core::throw_if_stopped(watch.stop);
        const auto started = Clock::now();
        const LayerFidelity kept = conversion.convert_layer(layer, watch.stop);
        conversion.report().layer_seconds.push_back(seconds_since(started));
        watch.progress.update(layer + 1, fmt::format("layer {}: keeps {:.0f} % of keys, {:.0f} % of values", layer,
                                                     100 * kept.key_energy, 100 * kept.value_energy));
    }
    watch.progress.end();
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
    if (trial) json["held_out"] = trial->to_json();
    json["seconds"] = seconds;
    json["calibration_seconds"] = calibration_seconds;
    json["layer_seconds"] = layer_seconds;
    json["peak_memory_bytes"] = peak_memory_bytes;
    return json;
}

void check_request(const ConvertRequest& request) {
    model::parse_device(request.device);
    checkpoint::check_target(request.target, request.replace);
    if (request.statistics.empty()) return;
    if (core::absolute_target(request.statistics) == core::absolute_target(request.target)) {
        throw core::Error({.what = "the statistics and the converted model would have the same name",
                           .where = request.target.string(),
                           .remedy = "name another --statistics"});
    }
    if (std::filesystem::exists(request.statistics)) return;
    checkpoint::check_target(request.statistics, false);
}

void check_calibration_size(const Plan& plan, std::int64_t windows) {
    if (!leaves_choices(plan) || windows > 1) return;
    throw core::Error({.what = "a choice is left to the calibration, and no window was held out to judge it by",
                       .expected = "2 windows or more, or the choice made with --no-by-layer or --freqfold N",
                       .got = "1 window",
                       .where = "--calibration"});
}

bool needs_calibration(const ConversionOptions& options, const ConvertRequest& request) {
    if (!find_method(options.method).needs_moments) return options.selection == Selection::two_norm;
    return request.statistics.empty() || !std::filesystem::exists(request.statistics);
}

ConversionReport convert(const Checkpoint& source, const Plan& plan, const data::TextWindows& calibration,
                         const ConvertRequest& request, core::Progress& progress, const std::stop_token& stop) {
    const auto started = Clock::now();
    const torch::NoGradGuard no_gradients;
    const Watch watch{progress, stop};
    check_request(request);
    std::optional<Measurements> measured;
    Choice settled{plan, std::nullopt};
    if (find_method(plan.options.method).needs_moments) {
        if (needs_calibration(plan.options, request)) {
            check_calibration_size(plan, std::ssize(calibration.windows) + std::ssize(calibration.held_out));
        }
        measured.emplace(source, plan, request);
        measured->measure(calibration, progress, stop);
        settled = settle(plan, source, measured->statistics(), request, watch);
    }
    Conversion conversion(source, settled.plan, request);
    if (measured) conversion.use(measured->statistics(), request);
    if (!measured && needs_calibration(plan.options, request)) conversion.walk(calibration, request);
    conversion.copy_shared_tensors(stop);
    convert_layers(conversion, watch);
    core::throw_if_stopped(stop);
    auto& report = conversion.report();
    report.trial = std::move(settled.trial);
    if (measured) report.calibration_seconds = measured->layer_seconds();
    report.seconds = seconds_since(started);
    report.peak_memory_bytes = core::peak_memory_bytes();
    conversion.write_documents(request);
    conversion.finish();
    return report;
}

}  // namespace mha2mla::convert
