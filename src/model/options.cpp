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

void settle_vector_functions() {
    for (const auto dtype : {torch::kFloat32, torch::kFloat64}) {
        const auto one = torch::ones({1}, dtype);
        for (const auto function : {at::cos, at::sin, at::exp, at::log, at::log2, at::sqrt}) function(one);
    }
}

void use_threads(int threads) {
    settle_vector_functions();
    if (threads > 0) torch::set_num_threads(threads);
}

torch::Dtype precise_type(torch::Dtype dtype) { return dtype == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32; }

}  // namespace mha2mla::model
