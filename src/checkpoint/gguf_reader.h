#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace mha2mla::checkpoint {

static_assert(std::endian::native == std::endian::little, "GGUF numbers are read as they lie in memory");

/// A number at any address.
template <typename Number>
Number load(const std::byte* address) {
    Number number;
    std::memcpy(&number, address, sizeof(Number));
    return number;
}

/// Text of a file for an error message: quoted, cut where long, '?' for what a terminal should not see.
std::string quoted(std::string_view text);

/// Reads a GGUF header front to back. Throws Error where the bytes end or a length claims more than is left, before
/// anything is allocated.
class GgufReader {
public:
    /// `where` must live as long as the reader.
    GgufReader(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

    std::size_t position() const { return position_; }
    std::size_t remaining() const { return bytes_.size() - position_; }

    template <typename Number>
    Number number() {
        return load<Number>(take(sizeof(Number)).data());
    }
    std::string_view string();
    std::span<const std::byte> take(std::uint64_t bytes);
    /// Everything between two positions that were read.
    std::span<const std::byte> between(std::size_t begin, std::size_t end) const {
        return bytes_.subspan(begin, end - begin);
    }
    /// A number of items that follow, each at least `bytes_each` long. `what` names them.
    std::uint64_t count(std::uint64_t claimed, std::size_t bytes_each, std::string_view what) const;

    [[noreturn]] void fail(const std::string& what) const;

private:
    std::span<const std::byte> bytes_;
    const std::string& where_;
    std::size_t position_ = 0;
};

}  // namespace mha2mla::checkpoint
