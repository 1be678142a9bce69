#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "calibrate/hidden_states.h"
#include "calibrate/statistics.h"
#include "checkpoint/model_config.h"

namespace mha2mla::calibrate {

/// The text of a calibration into `target` that was interrupted, where there is one. Throws Error where it is damaged
/// or not of this vocabulary.
std::optional<data::TextWindows> interrupted_text(const std::filesystem::path& target, int vocab_size);

/// Saves a calibration layer by layer in core::partial_path, which becomes the target when it is complete. What an
/// interrupted run left there, the finished layers and the hidden states after the last of them, is gone on with.
class StatisticsWriter {
public:
    /// Saves the text at once: sampling it took long. Throws Error where TARGET.partial is damaged or belongs to
    /// another calibration. `share`: the windows that this process carries.
    StatisticsWriter(const std::filesystem::path& target, const checkpoint::ModelConfig& config,
                     const StatisticsOrigin& origin, const data::TextWindows& tokens, std::vector<std::size_t> share);

    /// How many layers are finished, from the first on.
    int layers() const { return layers_; }
    AttentionMoments layer(int layer) const;
    /// The inputs of the first layer that is not finished, where there are finished ones.
    HiddenStates hidden(const RestOptions& rest) const;
    /// Saves the next layer and the inputs of the one after it.
    void add(const AttentionMoments& moments, const HiddenStates& next_inputs);
    /// Moves the complete statistics to the target.
    void finish();
    /// Removes them: another process has them too.
    void discard();

private:
    void create() const;
    void check();

    std::filesystem::path target_;
    std::filesystem::path partial_;
    checkpoint::ModelConfig config_;
    StatisticsOrigin origin_;
    data::TextWindows tokens_;
    std::vector<std::size_t> share_;
    int layers_ = 0;
};

}  // namespace mha2mla::calibrate
