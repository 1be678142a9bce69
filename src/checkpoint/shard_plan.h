#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/tensors.h"
#include "core/dtype.h"

namespace mha2mla::checkpoint {

/// Where one tensor goes.
struct PlannedTensor {
    TensorSpec spec;
    std::size_t shard = 0;
    std::int64_t begin = 0;  ///< bytes from the start of the shard's data
    std::int64_t end = 0;
};

/// One safetensors file to be written.
struct PlannedShard {
    std::string file_name;  ///< model.safetensors, or model-00001-of-00003.safetensors
    std::string header;     ///< length and JSON, padded so that the data begins at a multiple of 8 bytes
    std::int64_t data_bytes = 0;
};

struct ShardPlan {
    std::vector<PlannedTensor> tensors;  ///< in declared order
    std::vector<PlannedShard> shards;
    std::int64_t total_bytes = 0;  ///< of all tensors

    /// The text of model.safetensors.index.json.
    std::string index_json() const;
};

/// Places the tensors in declared order; a shard is closed before it would exceed `max_shard_bytes`.
ShardPlan plan_shards(std::vector<TensorSpec> tensors, core::DType dtype, std::int64_t max_shard_bytes);

}  // namespace mha2mla::checkpoint
