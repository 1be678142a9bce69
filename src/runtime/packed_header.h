#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "runtime/packed_weights.h"

/// The head of a file of packed weights, for packed_weights.cpp alone.
namespace mha2mla::runtime {

struct PackedOrigin {
    std::string model;    ///< fingerprint
    std::string formats;  ///< name_of
};

struct PackedLayout {
    std::string head;                  ///< the file up to the padding before the first matrix
    std::vector<std::size_t> offsets;  ///< of each matrix from the beginning of the file
};

PackedLayout packed_layout(const PackedOrigin& origin, std::span<const NamedMatrix> matrices);

/// Throws Error: `info` with the file and how to replace it.
[[noreturn]] void refuse_packed_weights(core::ErrorInfo info, const std::string& where);

}  // namespace mha2mla::runtime
