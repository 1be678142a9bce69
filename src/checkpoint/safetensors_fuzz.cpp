#include <cstddef>
#include <cstdint>

#include "checkpoint/safetensors.h"
#include "core/error.h"

/// Any bytes are either a safetensors file, all of whose tensors lie within it, or an Error.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
    try {
        for (const auto& entry : mha2mla::checkpoint::parse_safetensors(file, "fuzz")) {
            mha2mla::core::invariant(entry.begin <= entry.end && entry.end <= size, "tensors lie within the file");
        }
    } catch (const mha2mla::core::Error&) {
    }
    return 0;
}
