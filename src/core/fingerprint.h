#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <fmt/format.h>
#include <span>
#include <string>

namespace mha2mla::core {

/// FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv): tells inputs apart and is the same on every machine. No
/// defence against someone who wants two to agree.
class Fingerprint {
public:
    void add(std::span<const std::byte> bytes) {
        for (const std::byte byte : bytes) add_byte(std::to_integer<std::uint64_t>(byte));
    }
    /// The number's bytes, lowest first.
    template <std::unsigned_integral Number>
    void add(Number number) {
        for (std::size_t i = 0; i < sizeof(Number); ++i) {
            add_byte((static_cast<std::uint64_t>(number) >> (8 * i)) & 0xffU);
        }
    }
    /// 16 hexadecimal digits.
    std::string hex() const { return fmt::format("{:016x}", value_); }

private:
    void add_byte(std::uint64_t byte) { value_ = (value_ ^ byte) * 0x100000001b3U; }

    std::uint64_t value_ = 0xcbf29ce484222325U;
};

}  // namespace mha2mla::core
