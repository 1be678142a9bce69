#include "model/weights.h"

#include <utility>

#include "checkpoint/tensor_check.h"
#include "core/error.h"

namespace mha2mla::model {

torch::Tensor read_tensor(const checkpoint::TensorSource& source, const checkpoint::TensorSpec& spec,
                          const std::string& where) {
    checkpoint::check_tensor(spec, source, where);
    auto tensor = torch::empty(spec.shape, torch::kFloat32);
    source.read_rows(spec.name, 0, spec.shape.empty() ? 1 : spec.shape.front(),
                     {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
    return tensor;
}

torch::Tensor read_tensor(const checkpoint::Checkpoint& source, const std::string& name,
                          const checkpoint::Shape& shape) {
    return read_tensor(source.tensors(), {name, shape}, source.path().string());
}

void write_tensor(const torch::Tensor& tensor, checkpoint::CheckpointWriter& writer,
                  const checkpoint::TensorSpec& spec) {
    const auto values = tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous();
    core::invariant(values.sizes() == torch::IntArrayRef(spec.shape), "a tensor is written in its declared shape");
    writer.write(spec.name, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
}

Weights::Weights(const checkpoint::Checkpoint& source, const ModelOptions& options)
    : Weights([&source](const std::string& name,
                        const checkpoint::Shape& shape) { return read_tensor(source, name, shape); },
              options) {}

Weights::Weights(Reader reader, const ModelOptions& options) : reader_(std::move(reader)), options_(options) {}

Weights Weights::under(const std::string& name) const {
    Weights below = *this;
    below.prefix_ += name + ".";
    return below;
}

torch::Tensor Weights::load(const std::string& name, const checkpoint::Shape& shape) const {
    const auto tensor = reader_(prefix_ + name, shape);
    core::invariant(tensor.sizes() == torch::IntArrayRef(shape), "a weight reader returns the shape it was asked for");
    return tensor.to(options_.device, options_.dtype);
}

}  // namespace mha2mla::model
