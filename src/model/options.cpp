#include "model/options.h"

#include "core/error.h"

namespace mha2mla::model {

torch::Device parse_device(const std::string& name) {
    try {
        const torch::Device device(name);
        // A tiny round trip: the one test that tells a usable device from one that merely has a name.
        torch::ones({1}, torch::TensorOptions(device)).item<float>();
        return device;
    } catch (const c10::Error&) {
        throw core::Error({.what = "the device '" + name + "' cannot be used here",
                           .expected = "cpu, or cuda (cuda:1, ...) with a GPU and a build with -DMHA2MLA_CUDA=ON",
                           .where = "--device",
                           .remedy = "leave the option out to use the CPU"});
    }
}

void use_threads(int threads) {
    if (threads > 0) torch::set_num_threads(threads);
}

torch::Dtype precise_type(torch::Dtype dtype) { return dtype == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32; }

}  // namespace mha2mla::model
