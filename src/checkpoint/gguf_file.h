#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/gguf_blocks.h"
#include "checkpoint/gguf_metadata.h"
#include "checkpoint/tensors.h"

namespace mha2mla::checkpoint {

/// A tensor as it lies in the file, under llama.cpp's name.
struct GgufTensor {
    std::string_view name;
    Shape shape = {};  ///< outermost extent first (the file lists the innermost first)
    const BlockType* type = nullptr;
    std::span<const std::byte> data = {};

    std::int64_t row_elements() const { return shape.back(); }
    std::size_t row_bytes() const { return static_cast<std::size_t>(row_elements() / type->elements * type->bytes); }
};

/// A parsed GGUF file. Points into the file's bytes.
struct GgufFile {
    GgufMetadata metadata;
    std::vector<GgufTensor> tensors;  ///< in the order of the header

    const GgufTensor* find(std::string_view name) const;
};

/// Parses GGUF v2 or v3, little-endian. Every tensor lies within the file, aligned, in a type that we read, and
/// overlaps no other. `where` names the file in errors.
GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& where);

}  // namespace mha2mla::checkpoint
