#pragma once

#include <string>

#include "cache/cache_format.h"
#include "checkpoint/checkpoint.h"
#include "core/dtype.h"
#include "eval/perplexity.h"

/// What the verbs need of the workshop half. workshop/ implements it for mha2mla-workshop; mha2mla is linked with
/// no_workshop/ instead, which throws.
namespace mha2mla::cli {

bool has_workshop();

/// Becomes mha2mla-workshop, or mha2mla-mpi as one of mpirun's processes, where that lies beside this program and
/// `arguments` (argv) ask for more than running a model. Else returns, and throws Error as one of several processes.
void hand_over_to_workshop(char** arguments);

struct ModuleOptions {
    core::DType dtype = core::DType::bf16;  ///< of weights and products
    std::string device = "cpu";             ///< as LibTorch spells it ("cuda:0")
    int threads = 0;                        ///< 0: one per core
    cache::CacheFormat cache;               ///< what attention reads went through such a cache
};

/// Scores windows with the LibTorch module.
eval::WindowScorer module_scorer(const checkpoint::Checkpoint& model, const ModuleOptions& module_options);

}  // namespace mha2mla::cli
