#pragma once

#include <string>

#include "checkpoint/model_config.h"
#include "checkpoint/tensors.h"

namespace mha2mla::checkpoint {

/// Holds that a file consists of exactly the tensors that its config asks for, in the right shapes; known tensors that
/// carry no information of their own are let pass. Throws Error naming the first tensor that is wrong.
void check_tensors(const ModelConfig& config, const TensorSource& tensors, const std::string& where);

/// Holds that the tensor is there and has the expected shape.
void check_tensor(const TensorSpec& expected, const TensorSource& tensors, const std::string& where);

}  // namespace mha2mla::checkpoint
