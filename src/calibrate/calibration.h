#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <torch/torch.h>
#include <vector>

#include "calibrate/attention_moments.h"
#include "calibrate/hidden_states.h"
#include "calibrate/layer_walk.h"
#include "calibrate/statistics_writer.h"
#include "calibrate/tokens.h"
#include "checkpoint/checkpoint.h"
#include "core/progress.h"

namespace mha2mla::calibrate {

struct CalibrationOptions {
    MomentOptions moments = {};  ///< the seed is the layer's number
    torch::Device device = torch::kCPU;
    RestOptions rest = {};
    std::filesystem::path statistics = {};  ///< directory that keeps the moments and what is needed to go on; or empty
    const parallel::Communicator* processes = &parallel::alone();  ///< they share the windows
};

/// Where a process keeps the statistics until all are complete: the first one at their place.
std::filesystem::path statistics_of(const std::filesystem::path& target, int rank);

/// Measures the attention moments of a source model, layer by layer. Memory holds one layer's weights, its moments, and
/// what RestOptions allows of the hidden states.
class Calibration {
public:
    /// Goes on where an interrupted run with the same statistics directory stopped. Each process keeps what it needs to
    /// go on beside that directory. Throws Error where the text is of no use or the directory is not writable or not of
    /// this calibration. `source` must outlive it.
    Calibration(const checkpoint::Checkpoint& source, const data::TextWindows& text, const CalibrationOptions& options);

    /// The moments of the next layer, measured or from the interrupted run. Throws Cancelled.
    AttentionMoments next(const std::stop_token& stop);
    /// All layers that are left, and finish(). Returns the seconds of each.
    std::vector<double> run(core::Progress& progress, const std::stop_token& stop);
    int layers_from_before() const { return layers_from_before_; }
    /// After the last layer: the statistics appear under their name.
    void finish();

private:
    /// The next layer, which is not there yet.
    AttentionMoments measure(const std::stop_token& stop);
    void open_statistics(const checkpoint::Checkpoint& source, const data::TextWindows& text,
                         const std::vector<std::size_t>& share);

    CalibrationOptions options_;
    int layers_;  // of the model
    std::optional<StatisticsWriter> writer_;
    std::optional<LayerWalk> walk_;  // none where every layer is there already
    int layers_from_before_ = 0;
    int layer_ = 0;
};

}  // namespace mha2mla::calibrate
