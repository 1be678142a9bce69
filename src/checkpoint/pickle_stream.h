#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace mha2mla::checkpoint {

/// The operands of a pickle's instructions, read in order. Throws Error at the end of the bytes.
class PickleStream {
public:
    /// `where` must live as long as the stream.
    PickleStream(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

    std::size_t remaining() const { return bytes_.size(); }
    std::uint8_t u8() { return std::to_integer<std::uint8_t>(take(1)[0]); }
    std::uint16_t u16() { return static_cast<std::uint16_t>(little_endian(2)); }
    std::uint32_t u32() { return static_cast<std::uint32_t>(little_endian(4)); }
    /// A length byte, then a two's complement integer of that many bytes, here at most 8.
    std::int64_t long_integer();
    double big_endian_double();
    std::string text(std::size_t count);
    /// Up to the next line feed, which is left out.
    std::string line();

    [[noreturn]] void fail(const std::string& what) const;

private:
    std::span<const std::byte> take(std::size_t count);
    std::uint64_t little_endian(std::size_t count);

    std::span<const std::byte> bytes_;  // not read yet
    const std::string& where_;
};

}  // namespace mha2mla::checkpoint
