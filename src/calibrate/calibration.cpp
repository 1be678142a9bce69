#include "calibrate/calibration.h"

#include <chrono>
#include <fmt/format.h>

#include "core/error.h"
#include "core/file.h"

namespace mha2mla::calibrate {
namespace {

/// The windows of this process. Each process needs one: it measures on it.
std::vector<std::size_t> share_of(const data::TextWindows& text, const parallel::Communicator& processes) {
    std::vector<std::size_t> share;
    parallel::for_each_share(processes, text.windows.size(), [&](std::size_t window) { share.push_back(window); });
    if (text.windows.size() >= static_cast<std::size_t>(processes.size())) return share;
    throw core::Error({.what = "there are more processes than calibration windows",
                       .expected = fmt::format("{} at most", text.windows.size()),
                       .got = fmt::format("{}", processes.size()),
                       .where = "--calibration-windows"});
}

}  // namespace

std::filesystem::path statistics_of(const std::filesystem::path& target, int rank) {
    return rank == 0 ? target
                     : std::filesystem::path(core::absolute_target(target).string() + fmt::format(".process-{}", rank));
}

Calibration::Calibration(const checkpoint::Checkpoint& source, const data::TextWindows& text,
                         const CalibrationOptions& options)
    : options_(options), layers_(source.config().num_hidden_layers) {
    check_windows(text, shortest_window(options.moments));
    const auto share = share_of(text, *options.processes);
    if (!options.statistics.empty()) open_statistics(source, text, share);
    model::ModelOptions model;
    model.device = options.device;
    if (layers_from_before_ == 0) {
        std::vector<std::vector<int>> windows;
        for (const auto window : share) windows.push_back(text.windows[window]);
        walk_.emplace(source, windows, model, options.rest);
    } else if (layers_from_before_ < layers_) {
        walk_.emplace(source, layers_from_before_, writer_->hidden(options.rest), model);
    }
}

void Calibration::open_statistics(const checkpoint::Checkpoint& source, const data::TextWindows& text,
                                  const std::vector<std::size_t>& share) {
    const auto& processes = *options_.processes;
    const StatisticsOrigin origin{
        .model = fingerprint_of(source), .text = record_of(text), .options = options_.moments};
    writer_.emplace(statistics_of(options_.statistics, processes.rank()), source.config(), origin, text, share);
    layers_from_before_ = writer_->layers();
    double all = layers_from_before_;
    processes.sum({&all, 1});
    if (all == layers_from_before_ * processes.size()) return;
    throw core::Error({.what = "the processes of an interrupted calibration stopped at different layers",
                       .where = core::partial_path(options_.statistics).string(),
                       .remedy = fmt::format("remove {}*.partial to start again", options_.statistics.string())});
}

AttentionMoments Calibration::measure(const std::stop_token& stop) {
    auto options = options_.moments;
    options.seed = static_cast<std::uint64_t>(layer_++);
    auto moments = measure_attention_moments(*walk_, options, stop, *options_.processes);
    if (writer_) writer_->add(moments, walk_->hidden());
    return moments;
}

AttentionMoments Calibration::next(const std::stop_token& stop) {
    if (layer_ < layers_from_before_) return writer_->layer(layer_++);
    auto moments = measure(stop);
    return writer_ ? writer_->layer(layer_ - 1) : moments;  // as a later conversion from the statistics will see them
}

std::vector<double> Calibration::run(core::Progress& progress, const std::stop_token& stop) {
    using Clock = std::chrono::steady_clock;
    std::vector<double> seconds;
    progress.begin("calibrating", layers_);
    while (layer_ < layers_) {
        const auto started = Clock::now();
        if (layer_ < layers_from_before_) {
            ++layer_;
        } else {
            measure(stop);
        }
        seconds.push_back(std::chrono::duration<double>(Clock::now() - started).count());
        progress.update(layer_, "");
    }
    progress.end();
    finish();
    return seconds;
}

void Calibration::finish() {
    if (!writer_) return;
    if (options_.processes->rank() == 0) {
        writer_->finish();
    } else {
        writer_->discard();
    }
}

}  // namespace mha2mla::calibrate
