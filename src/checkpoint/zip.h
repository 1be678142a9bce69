#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace mha2mla::checkpoint {

/// The entries of a zip archive by name, pointing into `archive`. Entries must be stored, neither compressed nor
/// encrypted (what PyTorch writes), and below 4 GB. Throws Error naming `where` on anything damaged.
/// Source: PKWARE APPNOTE.TXT, sections 4.3.7, 4.3.12, 4.3.16.
std::map<std::string, std::span<const std::byte>, std::less<>> read_zip(std::span<const std::byte> archive,
                                                                        const std::string& where);

}  // namespace mha2mla::checkpoint
