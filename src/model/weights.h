#pragma once

#include <functional>
#include <string>
#include <torch/torch.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"
#include "model/options.h"

namespace mha2mla::model {

/// Where a module gets its weights: asked for by name *and* shape, under a prefix, and delivered in the model's dtype
/// on its device. A wrong checkpoint therefore fails naming the tensor, expected and got.
class Weights {
public:
    /// Returns the fp32 CPU tensor of that name and shape, or throws core::Error.
    using Reader = std::function<torch::Tensor(const std::string& name, const checkpoint::Shape& shape)>;

    /// Reads from a checkpoint, which must outlive this object.
    Weights(const checkpoint::Checkpoint& source, const ModelOptions& options);
    /// Reads from anywhere: converted tensors that are not on disk yet, random ones in tests.
    Weights(Reader reader, const ModelOptions& options);

    /// The same weights below `name`: under("self_attn").load("q_proj.weight", ...) asks for "self_attn.q_proj.weight".
    Weights under(const std::string& name) const;
    torch::Tensor load(const std::string& name, const checkpoint::Shape& shape) const;
    const ModelOptions& options() const { return options_; }

private:
    Reader reader_;
    std::string prefix_;
    ModelOptions options_;
};

/// A tensor as read: fp32, on the CPU. Throws Error, which names `where`, if it is absent or of another shape.
torch::Tensor read_tensor(const checkpoint::TensorSource& source, const checkpoint::TensorSpec& spec,
                          const std::string& where);
torch::Tensor read_tensor(const checkpoint::Checkpoint& source, const std::string& name,
                          const checkpoint::Shape& shape);

/// Writes a tensor of any type and device, which must have the declared shape.
void write_tensor(const torch::Tensor& tensor, checkpoint::CheckpointWriter& writer,
                  const checkpoint::TensorSpec& spec);

}  // namespace mha2mla::model
