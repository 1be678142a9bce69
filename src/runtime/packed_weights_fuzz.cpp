// Hostile files of packed weights: the head is parsed, then the front, the end and the last row of every matrix are
// read.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/error.h"
#include "runtime/packed_weights.h"

namespace {
constexpr std::int64_t most_inputs = 1 << 20;  // no more, since each input takes its time
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const auto index = mha2mla::runtime::parse_packed_weights(std::as_bytes(std::span(data, size)), "fuzz");
        volatile unsigned sum = 0;
        for (const auto& [name, matrix] : index.matrices) {
            const auto* bytes = static_cast<const std::uint8_t*>(matrix.data);
            const auto count = mha2mla::runtime::bytes_of(matrix);
            sum = sum + bytes[0] + bytes[count - 1];
            if (matrix.inputs > most_inputs) continue;
            std::vector<float> row(static_cast<std::size_t>(matrix.inputs));
            mha2mla::kernels::unpack_row(matrix, matrix.outputs - 1, row.data());
        }
    } catch (const mha2mla::core::Error&) {
    }
    return 0;
}
