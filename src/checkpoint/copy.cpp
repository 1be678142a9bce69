#include "checkpoint/copy.h"

#include <algorithm>
#include <vector>

namespace mha2mla::checkpoint {

void copy_tensor(const Checkpoint& source, CheckpointWriter& writer, const TensorSpec& spec) {
    constexpr std::int64_t values_at_a_time = std::int64_t{1} << 22;
    const std::int64_t rows = spec.shape.front();
    const std::int64_t width = std::max<std::int64_t>(1, element_count(spec.shape) / rows);
    const std::int64_t step = std::clamp<std::int64_t>(values_at_a_time / width, 1, rows);
    std::vector<float> values(static_cast<std::size_t>(step * width));
    for (std::int64_t row = 0; row < rows; row += step) {
        const std::int64_t count = std::min(step, rows - row);
        const std::span<float> part(values.data(), static_cast<std::size_t>(count * width));
        source.read_rows(spec.name, spec.shape, row, count, part);
        writer.write_rows(spec.name, row, part);
    }
}

}  // namespace mha2mla::checkpoint
