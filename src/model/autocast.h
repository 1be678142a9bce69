#pragma once

#include <ATen/autocast_mode.h>
#include <torch/torch.h>

namespace mha2mla::model {

/// While it lives, products compute in bf16, norms round their results to it, and all else is in the type of its
/// inputs, so that weights stay fp32.
class Autocast {
public:
    Autocast(torch::Device device, bool enabled)
        : device_(device.type()), was_enabled_(at::autocast::is_autocast_enabled(device_)) {
        at::autocast::set_autocast_enabled(device_, enabled);
        if (enabled) at::autocast::set_autocast_dtype(device_, torch::kBFloat16);
    }
    ~Autocast() {
        at::autocast::set_autocast_enabled(device_, was_enabled_);
        if (!was_enabled_) at::autocast::clear_cache();
    }
    Autocast(const Autocast&) = delete;
    Autocast& operator=(const Autocast&) = delete;

private:
    torch::DeviceType device_;
    bool was_enabled_;
};

/// Whether products round their factors here and now.
inline bool rounds_products(torch::Device device) { return at::autocast::is_autocast_enabled(device.type()); }

/// What products take of a tensor: for several of them, so that not each rounds it again.
inline torch::Tensor rounded_factor(const torch::Tensor& tensor) {
    return rounds_products(tensor.device()) ? tensor.to(torch::kBFloat16) : tensor;
}

}  // namespace mha2mla::model
