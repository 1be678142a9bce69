#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace mha2mla::data {

/// The bytes that a .gz file stands for, members one after the other. Throws Error where it is damaged, cut off, or
/// stands for more than `max_bytes`.
std::string gunzip(std::string_view bytes, const std::string& where, std::size_t max_bytes = std::size_t{1} << 31);

/// A text file, unpacked where its name ends with .gz; CRLF turned into LF. Throws Error where it is missing or not
/// UTF-8.
std::string read_maybe_gzipped(const std::filesystem::path& path);

}  // namespace mha2mla::data
