#pragma once

#include <cstddef>
#include <memory>
#include <torch/torch.h>
#include <vector>

#include "core/function_ref.h"
#include "finetune/batches.h"
#include "finetune/source_states.h"
#include "model/causal_lm.h"

namespace mha2mla::finetune {

/// The source's attention in one layer, [batch, tokens, hidden] each.
struct AttentionLesson {
    torch::Tensor input_BTE;     ///< normed, as its attention sees it
    torch::Tensor output_BTE;    ///< of its attention
    torch::Tensor residual_BTE;  ///< the stream with that added
};

/// What the source model says to the text that its conversion learns from. Makes no gradients.
class Teacher {
public:
    virtual ~Teacher() = default;
    /// Each layer once, the first ones first; perhaps several at once, by threads of their own. A lesson need not
    /// outlive its call.
    virtual void for_each_layer(const MicroBatch& batch,
                                core::FunctionRef<void(std::size_t layer, const AttentionLesson& lesson)> learn) = 0;
    /// Normed hidden states behind the last layer, [batch, tokens, hidden].
    virtual torch::Tensor hidden(const MicroBatch& batch) = 0;
    /// [vocab_size, hidden]
    virtual const torch::Tensor& output_matrix() const = 0;
};

/// LibTorch runs the model, with products in bf16 if so.
std::unique_ptr<Teacher> make_teacher(model::CausalLm source, bool bf16);

/// What is left of a source model that runs outside of LibTorch: between its layers' states and what they teach.
struct SourceNorms {
    explicit SourceNorms(model::CausalLm& source);

    std::vector<model::RmsNorm> of_inputs;  ///< a layer each
    model::RmsNorm final_norm = nullptr;
    torch::Tensor output_matrix;  ///< in bf16
};

/// Something else than LibTorch runs the model.
std::unique_ptr<Teacher> make_teacher(SourceNorms norms, std::unique_ptr<SourceStates> states);

}  // namespace mha2mla::finetune
