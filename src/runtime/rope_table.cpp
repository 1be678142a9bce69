#include "runtime/rope_table.h"

#include <cmath>

namespace mha2mla::runtime {

RopeTable::RopeTable(const checkpoint::ModelConfig& config, std::int64_t positions, core::ThreadPool& pool)
    : positions_(positions), pairs_(config.rope_pairs()), table_(static_cast<std::size_t>(positions * pairs_ * 2)) {
    const auto frequencies = checkpoint::rope_frequencies(config);
    pool.parallel_for(positions, 256, [&](std::int64_t begin, std::int64_t end) {
        float* entry = table_.data() + begin * pairs_ * 2;
        for (std::int64_t position = begin; position < end; ++position) {
            for (const double frequency : frequencies) {
                const double angle = static_cast<double>(position) * frequency;
                *entry++ = static_cast<float>(std::cos(angle));
                *entry++ = static_cast<float>(std::sin(angle));
            }
        }
    });
}

}  // namespace mha2mla::runtime
