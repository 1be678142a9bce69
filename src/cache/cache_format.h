#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "cache/group_quantizer.h"
#include "core/dtype.h"

namespace mha2mla::cache {

/// How the rows of one kind are kept: as numbers, or as codes.
struct RowFormat {
    core::DType dtype = core::DType::bf16;  ///< of the numbers; unused where there are codes
    std::optional<GroupFormat> codes;

    std::size_t row_bytes(std::size_t elements) const;

    bool operator==(const RowFormat&) const = default;
};

/// How a token is kept in the cache of a layer. Rotary keys carry the position and are read by every head: they keep 8
/// bits where the latent has fewer (docs/conversion.md, "Fewer bits").
struct CacheFormat {
    RowFormat content;  ///< the latent; of a grouped-query model, each head's rotated key and its value
    RowFormat rotary;   ///< the rotary keys of all rotary heads, side by side in one row

    bool operator==(const CacheFormat&) const = default;
};

/// Numbers of one type, as the native runtime keeps them.
CacheFormat plain_format(core::DType dtype);

/// "bf16", "int8", "int4" or "int2" for groups of 32, "int4-g64" for groups of 64; any group from 1 to 1024. Throws
/// Error naming `where`.
CacheFormat parse_cache_format(const std::string& name, const std::string& where);
/// The word that parse_cache_format reads, or the type of plain numbers.
std::string name_of(const CacheFormat& format);

}  // namespace mha2mla::cache
