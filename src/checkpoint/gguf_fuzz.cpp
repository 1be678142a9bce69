// Hostile GGUF files: everything that opening does, then the front of every tensor.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "checkpoint/gguf.h"
#include "core/error.h"

namespace {

constexpr std::int64_t max_elements = 1 << 16;

void read_front(const mha2mla::checkpoint::TensorSource& tensors, const mha2mla::checkpoint::TensorSpec& spec) {
    const auto elements = mha2mla::checkpoint::element_count(spec.shape);
    const auto width = elements / spec.shape[0];
    const auto rows = std::min(spec.shape[0], max_elements / width);
    std::vector<float> values(static_cast<std::size_t>(rows * width));
    tensors.read_rows(spec.name, spec.shape[0] - rows, rows, values);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const auto model = mha2mla::checkpoint::read_gguf(std::as_bytes(std::span(data, size)), "fuzz.gguf");
        for (const auto& spec : model.tensors->list()) {
            try {
                read_front(*model.tensors, spec);
            } catch (const mha2mla::core::Error&) {  // values that are not finite: the next tensor may be fine
            }
        }
    } catch (const mha2mla::core::Error&) {
    }
    return 0;
}
