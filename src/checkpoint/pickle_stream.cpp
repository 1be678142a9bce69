#include "checkpoint/pickle_stream.h"

#include <algorithm>
#include <bit>

#include "core/error.h"

namespace mha2mla::checkpoint {

std::span<const std::byte> PickleStream::take(std::size_t count) {
    if (count > bytes_.size()) fail("pickle is truncated");
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
}

std::uint64_t PickleStream::little_endian(std::size_t count) {
    std::uint64_t value = 0;
    const auto bytes = take(count);
    for (std::size_t i = count; i-- > 0;) value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
    return value;
}

std::int64_t PickleStream::long_integer() {
    const std::size_t count = u8();
    if (count > 8) fail("pickle holds an integer of more than 64 bits");
    if (count == 0) return 0;
    const auto unused = static_cast<int>(64 - 8 * count);
    return static_cast<std::int64_t>(little_endian(count) << unused) >> unused;  // extends the sign
}

double PickleStream::big_endian_double() {
    std::uint64_t bits = 0;
    for (const auto byte : take(8)) bits = bits << 8 | std::to_integer<std::uint64_t>(byte);
    return std::bit_cast<double>(bits);
}

std::string PickleStream::text(std::size_t count) {
    const auto bytes = take(count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string PickleStream::line() {
    const auto end = std::find(bytes_.begin(), bytes_.end(), std::byte{'\n'});
    if (end == bytes_.end()) fail("pickle is truncated");
    auto line = text(static_cast<std::size_t>(end - bytes_.begin()));
    take(1);
    return line;
}

void PickleStream::fail(const std::string& what) const { throw core::Error({.what = what, .where = where_}); }

}  // namespace mha2mla::checkpoint
