#include "checkpoint/zip.h"

#include <algorithm>
#include <cstdint>
#include <fmt/format.h>

#include "core/error.h"

namespace mha2mla::checkpoint {
namespace {

constexpr std::uint32_t end_signature = 0x06054b50;
constexpr std::uint32_t entry_signature = 0x02014b50;
constexpr std::uint32_t local_signature = 0x04034b50;
constexpr std::size_t end_bytes = 22;
constexpr std::size_t entry_bytes = 46;
constexpr std::size_t local_bytes = 30;
constexpr std::size_t max_comment_bytes = 65535;
constexpr std::uint16_t encrypted_flag = 1;

/// Little-endian numbers of an archive; every access is checked.
class ZipBytes {
public:
    ZipBytes(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

    std::size_t size() const { return bytes_.size(); }

    std::span<const std::byte> slice(std::size_t offset, std::size_t count) const {
        if (offset > bytes_.size() || count > bytes_.size() - offset) fail("zip archive is truncated or damaged");
        return bytes_.subspan(offset, count);
    }
    std::uint16_t u16(std::size_t offset) const {
        const auto at = slice(offset, 2);
        return static_cast<std::uint16_t>(std::to_integer<unsigned>(at[0]) | std::to_integer<unsigned>(at[1]) << 8);
    }
    std::uint32_t u32(std::size_t offset) const { return u16(offset) | std::uint32_t{u16(offset + 2)} << 16; }
    std::string text(std::size_t offset, std::size_t count) const {
        const auto at = slice(offset, count);
        return {reinterpret_cast<const char*>(at.data()), count};
    }

    [[noreturn]] void fail(const std::string& what) const { throw core::Error({.what = what, .where = where_}); }

private:
    std::span<const std::byte> bytes_;
    const std::string& where_;
};

/// The "end of central directory" record: the last place that carries its signature.
std::size_t find_end(const ZipBytes& zip) {
    if (zip.size() >= end_bytes) {
        const std::size_t last = zip.size() - end_bytes;
        const std::size_t first = last - std::min(last, max_comment_bytes);
        for (std::size_t offset = last + 1; offset-- > first;) {
            if (zip.u32(offset) == end_signature) return offset;
        }
    }
    zip.fail("not a zip archive, or a truncated one");
}

/// The bytes of the entry whose central record is at `offset`.
std::span<const std::byte> entry_data(const ZipBytes& zip, std::size_t offset, const std::string& name) {
    const bool stored = zip.u16(offset + 10) == 0 && (zip.u16(offset + 8) & encrypted_flag) == 0;
    const std::uint32_t bytes = zip.u32(offset + 24);
    if (!stored || zip.u32(offset + 20) != bytes) zip.fail(fmt::format("zip entry '{}' is compressed", name));
    const std::size_t local = zip.u32(offset + 42);
    if (zip.u32(local) != local_signature) zip.fail(fmt::format("zip entry '{}' is damaged", name));
    return zip.slice(local + local_bytes + zip.u16(local + 26) + zip.u16(local + 28), bytes);
}

}  // namespace

std::map<std::string, std::span<const std::byte>, std::less<>> read_zip(std::span<const std::byte> archive,
                                                                        const std::string& where) {
    const ZipBytes zip(archive, where);
    const std::size_t end = find_end(zip);
    const std::size_t count = zip.u16(end + 10);
    std::size_t offset = zip.u32(end + 16);
    std::map<std::string, std::span<const std::byte>, std::less<>> entries;
    for (std::size_t i = 0; i < count; ++i) {
        if (zip.u32(offset) != entry_signature) zip.fail("zip directory is damaged");
        const std::size_t name_bytes = zip.u16(offset + 28);
        auto name = zip.text(offset + entry_bytes, name_bytes);
        const auto data = entry_data(zip, offset, name);
        if (!entries.emplace(name, data).second) zip.fail(fmt::format("zip entry '{}' appears twice", name));
        offset += entry_bytes + name_bytes + zip.u16(offset + 30) + zip.u16(offset + 32);
    }
    return entries;
}

}  // namespace mha2mla::checkpoint
