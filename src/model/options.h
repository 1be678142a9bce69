#pragma once

#include <optional>
#include <string>
#include <torch/torch.h>

#include "cache/cache_format.h"

namespace mha2mla::model {

/// How MLA attention is computed; both forms give the same numbers up to rounding.
enum class AttentionForm {
    expanded,  ///< keys and values are rebuilt from the latent: for training and prefill
    absorbed,  ///< queries move into latent space, as in decoding: the oracle of the native runtime
};

struct ModelOptions {
    /// Type of weights and products. Norms, softmax and rotation compute in fp32 (fp64 for kFloat64).
    torch::Dtype dtype = torch::kFloat32;
    torch::Device device = torch::kCPU;
    AttentionForm attention = AttentionForm::expanded;
    /// Attend to what such a cache would give back of each token.
    std::optional<cache::CacheFormat> emulated_cache = {};
    /// Where gradients are wanted, a layer keeps its inputs alone and computes the rest again in the backward pass.
    bool recompute = false;
};

/// "cpu", "cuda", "cuda:1", ... as a device that works here. Throws Error naming --device where it does not.
torch::Device parse_device(const std::string& name);

/// Calls each of MKL's vector functions that the workshop uses once, with one thread. MKL picks a function's code for
/// the processor at its first call; where threads make that call together, one of them may run code with half the
/// digits (pytorch issue 188792).
void settle_vector_functions();

/// Settles vector functions; from now on LibTorch computes with so many threads, 0: one per core.
void use_threads(int threads);

/// The type in which norms, softmax and rotation compute: fp64 for fp64, else fp32.
torch::Dtype precise_type(torch::Dtype dtype);

}  // namespace mha2mla::model
