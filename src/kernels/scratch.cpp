#include "kernels/cpu/scratch.h"

#include "kernels/kernels.h"

namespace mha2mla::kernels {

std::size_t linear_scratch_bytes(std::int64_t rows, std::int64_t inputs) {
    return static_cast<std::size_t>(rows * rounded_row_bytes(inputs));
}

std::size_t attention_scratch_bytes(std::int64_t /*rows*/, std::int64_t key_width, std::int64_t value_width) {
    return static_cast<std::size_t>(attention_scratch(key_width, value_width).bytes);
}

}  // namespace mha2mla::kernels
