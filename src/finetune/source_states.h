#pragma once

#include <span>

#include "core/function_ref.h"

namespace mha2mla::finetune {

/// The residual stream of some of a window's tokens at a place among the source model's layers: before layer `layer`,
/// or once its attention is added. The layer after the last is what the final norm takes.
struct SourceState {
    int layer = 0;
    bool attended = false;
    int first_token = 0;
    std::span<const float> x_TE;  ///< [consecutive tokens, hidden_size]
};

/// The source model's forward pass in bf16 on the CPU, computed outside of LibTorch.
class SourceStates {
public:
    virtual ~SourceStates() = default;
    /// Shows every state of every token of a window, some tokens at a time, which are valid during the visit. That must
    /// not throw.
    virtual void run(std::span<const int> window, core::FunctionRef<void(const SourceState&)> visit) = 0;
};

}  // namespace mha2mla::finetune
