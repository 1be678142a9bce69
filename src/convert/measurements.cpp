#include "convert/measurements.h"

#include "calibrate/calibration.h"
#include "model/options.h"

namespace mha2mla::convert {

calibrate::RestOptions rest_options(const ConvertRequest& request) {
    return {.memory_bytes = request.memory_bytes,
            .spill_directory = core::absolute_target(request.target).parent_path()};
}

Measurements::Measurements(const checkpoint::Checkpoint& source, const Plan& plan, const ConvertRequest& request)
    : source_(source),
      options_{.sinks = plan.options.lsq.sinks, .centred_keys = plan.options.lsq.mean_key},
      request_(request),
      path_(request.statistics) {
    if (!path_.empty()) return;
    scratch_.emplace(core::absolute_target(request.target).string() + ".statistics", true);
    path_ = scratch_->path() / "statistics";
}

void Measurements::measure(const data::TextWindows& text, core::Progress& progress, const std::stop_token& stop) {
    if (!std::filesystem::exists(path_)) {
        data::TextWindows divided = text;
        if (divided.held_out.empty()) calibrate::hold_out(divided);
        calibrate::Calibration calibration(source_, divided,
                                           {.moments = options_,
                                            .device = model::parse_device(request_.device),
                                            .rest = rest_options(request_),
                                            .statistics = path_});
        layer_seconds_ = calibration.run(progress, stop);
    }
    statistics_.emplace(path_, source_, options_);
}

}  // namespace mha2mla::convert
