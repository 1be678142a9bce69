#include "calibrate/calibration.h"

#include <chrono>

namespace mha2mla::calibrate {
Calibration::Calibration(const checkpoint::Checkpoint& source, const CalibrationTokens& text,
                         const CalibrationOptions& options)
    : options_(options), layers_(source.config().num_hidden_layers) {
    check_windows(text, shortest_window(options.moments));
    if (!options.statistics.empty()) {
        const StatisticsOrigin origin{
            .model = fingerprint_of(source), .text = record_of(text), .options = options.moments};
        writer_.emplace(options.statistics, source.config(), origin, text);
        layers_from_before_ = writer_->layers();
    }
    model::ModelOptions model;
    model.device = options.device;
    if (layers_from_before_ == 0) {
        walk_.emplace(source, text.windows, model, options.rest);
    } else if (layers_from_before_ < source.config().num_hidden_layers) {
        walk_.emplace(source, layers_from_before_, writer_->hidden(options.rest), model);
    }
}

AttentionMoments Calibration::next(const std::stop_token& stop) {
    const int layer = layer_++;
    if (layer < layers_from_before_) return writer_->layer(layer);
    auto options = options_.moments;
    options.seed = static_cast<std::uint64_t>(layer);
    auto moments = measure_attention_moments(*walk_, options, stop);
    if (!writer_) return moments;
    writer_->add(moments, walk_->hidden());
    return writer_->layer(layer);  // as a later conversion from the statistics will see them
}

std::vector<double> Calibration::run(core::Progress& progress, const std::stop_token& stop) {
    using Clock = std::chrono::steady_clock;
    std::vector<double> seconds;
    progress.begin("calibrating", layers_);
    while (layer_ < layers_) {
        const auto started = Clock::now();
        next(stop);
        seconds.push_back(std::chrono::duration<double>(Clock::now() - started).count());
        progress.update(layer_, "");
    }
    progress.end();
    finish();
    return seconds;
}

void Calibration::finish() {
    if (writer_) writer_->finish();
}

}  // namespace mha2mla::calibrate
