#pragma once

#include <cstdint>

#include "cache/arena.h"
#include "checkpoint/model_config.h"
#include "core/thread_pool.h"

namespace mha2mla::runtime {

/// cos and sin of every rotary frequency at every position: [positions, pairs, 2].
class RopeTable {
public:
    RopeTable(const checkpoint::ModelConfig& config, std::int64_t positions, core::ThreadPool& pool);

    const float* data() const { return table_.data(); }
    std::int64_t positions() const { return positions_; }
    std::int64_t pairs() const { return pairs_; }

private:
    std::int64_t positions_;
    std::int64_t pairs_;
    cache::ArenaArray<float> table_;
};

}  // namespace mha2mla::runtime
