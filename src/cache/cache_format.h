#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "cache/group_quantizer.h"
#include "core/dtype.h"

namespace mha2mla::cache {

/// Tokens of a page.
inline constexpr std::int64_t page_tokens = 64;

/// How the rows of one kind are kept: as numbers, or as codes.
struct RowFormat {
    core::DType dtype = core::DType::bf16;  ///< of the numbers, and of rows whose page is not full yet
    std::optional<GroupFormat> codes;
    /// A group is not a run of elements in a token's row but a channel in all tokens of a page (KIVI, arXiv
    /// 2402.02750): for rows whose outliers stay in the same channels. group_elements is then page_tokens.
    bool by_channel = false;

    /// Of a token; where groups are channels, its share of a page, rounded up.
    std::size_t row_bytes(std::size_t elements) const;

    bool operator==(const RowFormat&) const = default;
};

/// How a token is kept in the cache of a layer. Rotary keys carry the position and are read by every head: they keep 8
/// bits where the latent has fewer (docs/conversion.md, "Fewer bits").
struct CacheFormat {
    RowFormat content;  ///< the latent; of a grouped-query model, each head's value
    RowFormat rotary;   ///< the rotary keys of all rotary heads, side by side in one row
    RowFormat keys;     ///< of a grouped-query model, each head's rotated key

    /// Full pages are kept as codes.
    bool has_codes() const { return content.codes || rotary.codes || keys.codes; }

    bool operator==(const CacheFormat&) const = default;
};

/// Numbers of one type.
CacheFormat plain_format(core::DType dtype);

/// Reads the name of a format:
///   "bf16", "f32"                 numbers
///   "int8", "int4", "int2"        codes in groups of 32 elements of a row, and rotary keys in int8
///   "int4-g64"                    in groups of 64, or of any size from 1 to 1024
///   "int4-c"                      a group is a channel in the tokens of a page
///   "latent=int4,rope=int8"       latent and rotary keys separately
///   "keys=int4-c,values=int4"     keys and values of a grouped-query model separately; "kivi4" is short for it
/// Throws Error naming `where`.
CacheFormat parse_cache_format(const std::string& name, const std::string& where);
/// Throws Error, naming `where`, where the format tells parts apart that the model's cache does not have.
void check_applies(const CacheFormat& format, bool has_latents, const std::string& where);
/// The shortest name that parse_cache_format reads as this format.
std::string name_of(const CacheFormat& format);

}  // namespace mha2mla::cache
