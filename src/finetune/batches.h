#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <torch/torch.h>
#include <vector>

#include "finetune/options.h"

namespace mha2mla::finetune {

/// What one step of the optimizer learns from: windows by index.
struct Batch {
    std::vector<std::size_t> windows;
    std::int64_t tokens = 0;
};

/// The batches of every stage. The windows come in an order drawn from the seed, all before any comes again (in another
/// order); a stage goes on where the one before stopped. A batch has windows until batch_tokens are reached, a stage
/// batches until its share of the tokens is. Depends on the seed, the lengths and the options alone.
std::vector<std::vector<Batch>> plan_batches(const std::vector<std::vector<int>>& windows, const Options& options);

/// Windows that pass through the model together: padded at their ends, where causal attention keeps padding from what
/// comes before it.
struct MicroBatch {
    MicroBatch(const std::vector<std::vector<int>>& all, std::span<const std::size_t> chosen, torch::Device device);

    /// Of token ids [batch, tokens] seen as one list: every token that is no padding.
    torch::Tensor positions() const { return positions_before(0); }
    /// Every token that has a next one.
    torch::Tensor scored_positions() const { return positions_before(1); }

    torch::Tensor ids_BT;
    std::vector<std::int64_t> lengths;

private:
    /// All but the last `left_out` tokens of each window.
    torch::Tensor positions_before(std::int64_t left_out) const;
};

}  // namespace mha2mla::finetune
