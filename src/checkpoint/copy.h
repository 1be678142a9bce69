#pragma once

#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"

namespace mha2mla::checkpoint {

/// Copies a tensor of a checkpoint as it is, some rows at a time: embeddings can be larger than a layer.
void copy_tensor(const Checkpoint& source, CheckpointWriter& writer, const TensorSpec& spec);

}  // namespace mha2mla::checkpoint
