#pragma once

#include <cstddef>
#include <cstdint>

#include "cache/page_format.h"

namespace mha2mla::cache {

/// Quantizes the exact rows of a full page. `exact`: its planes, `sealed`: full_page_bytes() of memory. Allocates
/// nothing.
void seal_page(const PageFormat& format, const std::byte* exact, std::byte* sealed);

/// The first `rows` rows of a sealed page as a page that can be written on. De-quantized numbers are rounded to the
/// format's type.
void unseal_rows(const PageFormat& format, const std::byte* sealed, std::int64_t rows, std::byte* exact);

}  // namespace mha2mla::cache
