#pragma once

#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <torch/torch.h>
#include <vector>

#include "core/file.h"

namespace mha2mla::calibrate {

/// Where hidden states rest while no layer works on them.
struct RestOptions {
    std::size_t memory_bytes = std::numeric_limits<std::size_t>::max();  ///< beyond it they rest on disk
    std::filesystem::path spill_directory = std::filesystem::temp_directory_path();
};

/// The hidden states of a calibration's windows between two layers, as bf16: the first windows in memory, those that
/// its limit does not hold in a nameless file. Throws Error where that file cannot be written.
class HiddenStates {
public:
    explicit HiddenStates(const RestOptions& options) : options_(options) {}

    std::size_t windows() const { return slots_.size(); }
    std::int64_t tokens(std::size_t window) const { return slots_.at(window).tokens; }
    /// [1, tokens, hidden]: one more window, rounded to bf16.
    void append(const torch::Tensor& hidden_BTE);
    /// New states of a window, of the same shape.
    void replace(std::size_t window, const torch::Tensor& hidden_BTE);
    /// [1, tokens, hidden], fp32, on the CPU.
    torch::Tensor get(std::size_t window) const;

private:
    struct Slot {
        std::int64_t tokens = 0;
        std::int64_t width = 0;
        std::size_t file_offset = 0;  // where `states` is undefined
        torch::Tensor states;         // bf16, where memory holds them
    };
    void rest(Slot& slot, const torch::Tensor& hidden_BTE);

    RestOptions options_;
    std::vector<Slot> slots_;
    std::size_t memory_bytes_ = 0;  // taken so far
    std::size_t file_bytes_ = 0;
    std::optional<core::ScratchFile> file_;
};

}  // namespace mha2mla::calibrate
