#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/code_group.h"

namespace mha2mla::checkpoint {

/// A storage type of GGUF tensors: rows are sequences of blocks of the same size.
struct BlockType {
    std::uint32_t id;  ///< the format's number
    const char* name;  ///< "Q4_1"
    int elements;      ///< of a block
    int bytes;         ///< of a block
    /// Converts `blocks` consecutive blocks into blocks * elements floats.
    void (*dequantize)(const std::byte* data, std::int64_t blocks, float* out);
    /// Hands the codes of `blocks` consecutive blocks out as they are; nullptr where a type is of another kind.
    void (*codes)(const std::byte* data, std::int64_t blocks, core::CodeGroup* out) = nullptr;
};

/// nullptr where the type is not supported.
const BlockType* find_block_type(std::uint32_t id);

/// "F32, F16, ..."
std::string supported_block_types();

/// Name of any type that GGUF files are known to have ("IQ4_XS"); "number 77" for others.
std::string stored_type_name(std::uint32_t id);

}  // namespace mha2mla::checkpoint
