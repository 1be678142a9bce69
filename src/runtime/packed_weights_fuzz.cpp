// Hostile files of packed weights: the head is parsed, then the front and the end of every matrix are read.

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/error.h"
#include "runtime/packed_weights.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const auto index = mha2mla::runtime::parse_packed_weights(std::as_bytes(std::span(data, size)), "fuzz");
        volatile unsigned sum = 0;
        for (const auto& [name, matrix] : index.matrices) {
            const auto* bytes = static_cast<const std::uint8_t*>(matrix.data);
            const auto count = mha2mla::runtime::bytes_of(matrix);
            sum = sum + bytes[0] + bytes[count - 1];
        }
    } catch (const mha2mla::core::Error&) {
    }
    return 0;
}
