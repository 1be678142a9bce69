#pragma once

#include <string>

#include "checkpoint/checkpoint.h"
#include "core/dtype.h"
#include "eval/perplexity.h"

/// What the verbs need of the workshop half. workshop/ implements it; no_workshop/ is linked instead in a build of the
/// runtime half alone and throws.
namespace mha2mla::cli {

bool has_workshop();

/// Scores windows with the LibTorch module. `device` as LibTorch spells it ("cpu", "cuda:0").
eval::WindowScorer module_scorer(const checkpoint::Checkpoint& model, core::DType dtype, const std::string& device);

}  // namespace mha2mla::cli
